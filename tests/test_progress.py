"""Lines and bars say what runs, how far it is and how long it takes, and never hand control characters on."""

from __future__ import annotations

import io
import os
import pty

import pytest
from rich.console import Console

from bench.execution.progress import Bars, Count, Lines, Reporter, Tally, duration, make_reporter
from bench.format import printable
from bench.plugins.execution import Progress
from bench.records.record import Status
from tests.factories import failed_record, make_record
from tests.sweeps import make_cell


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_lines_at_each_phase_and_every_15_seconds(clock: FakeClock) -> None:
    stream = io.StringIO()
    lines = Lines(stream, clock=clock)
    first, second = make_cell("F-LoRA"), make_cell("T-T")
    lines.begin(cells=3, finished=1, slots=1)
    lines.cell_started(first)
    for clock.now in range(101):
        done = int(clock.now)
        lines.cell_progress(first, Progress(phase="train", done=done, total=100, note=f"loss {100 - done}"))
    lines.cell_ended(first, make_record(first))
    lines.cell_started(second)
    lines.cell_ended(second, failed_record(second, Status.OOM))
    lines.end()
    assert stream.getvalue().splitlines() == [
        "[2/3] F-LoRA: started",
        "[2/3] F-LoRA: train 0/100  loss 100, 0:00 so far",
        "[2/3] F-LoRA: train 15/100  loss 85, 0:15 so far, all cells about 2:41 left",
        "[2/3] F-LoRA: train 30/100  loss 70, 0:30 so far, all cells about 2:57 left",
        "[2/3] F-LoRA: train 45/100  loss 55, 0:45 so far, all cells about 2:55 left",
        "[2/3] F-LoRA: train 60/100  loss 40, 1:00 so far, all cells about 2:46 left",
        "[2/3] F-LoRA: train 75/100  loss 25, 1:15 so far, all cells about 2:36 left",
        "[2/3] F-LoRA: train 90/100  loss 10, 1:30 so far, all cells about 2:24 left",
        "[2/3] F-LoRA: ok, 1:40 (about 1:40 left)",
        "[3/3] T-T: started",
        "[3/3] T-T: oom (CUDA out of memory), 0:00",
    ]


def test_the_time_left_is_shared_by_slots(clock: FakeClock) -> None:
    tally = Tally(cells=6, done=0, slots=2, clock=clock)
    assert tally.left_s() is None
    cell = make_cell("a")
    tally.start(cell)
    clock.now = 60
    tally.end(cell, Status.OK)
    assert tally.left_s() == 5 * 60 / 2
    tally.start(cell)
    tally.end(cell, Status.CRASHED)
    assert tally.left_s() == 4 * 60 / 2, "a crash after no time says nothing about the others"


def bars() -> tuple[Bars, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    return Bars(console), stream


def test_bars_show_cells_and_all() -> None:
    shown, stream = bars()
    cell = make_cell("F-LoRA [bold] rank=4")
    shown.begin(cells=2, finished=0, slots=1)
    shown.cell_started(cell)
    shown.cell_progress(cell, Progress(phase="train", done=40, total=80, note="loss 0.412"))
    shown._display.refresh()
    shown.cell_ended(cell, make_record(cell))
    shown.end()
    for text in (
        "F-LoRA [bold] rank=4",
        "train 40/80  loss 0.412",
        "all cells",
        "0/2",
        "[1/2] F-LoRA [bold] rank=4: ok",
    ):
        assert text in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue(), "the cursor is back"


@pytest.mark.parametrize("lines", [True, False])
def test_hostile_labels_cannot_move_the_cursor(lines: bool) -> None:
    stream = io.StringIO()
    shown: Reporter = Lines(stream)
    if not lines:
        shown, stream = bars()
    cell = make_cell("\x1b[2Jevil\nforged: line\r")
    shown.begin(cells=1, finished=0, slots=1)
    shown.cell_started(cell)
    shown.cell_progress(cell, Progress(phase="train", done=1, total=2, note="\x1b]0;title\x07"))
    shown.cell_ended(cell, make_record(cell))
    shown.end()
    for bad in ("\x1b[2Jevil", "evil\n", "\x1b]0;"):
        assert bad not in stream.getvalue()


def test_end_without_begin_is_fine() -> None:
    bars()[0].end()


def test_bars_on_terminals_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_reporter(io.StringIO()), Lines)
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            monkeypatch.setenv("TERM", "xterm")
            assert isinstance(make_reporter(terminal), Bars)
            monkeypatch.setenv("TERM", "dumb")
            assert isinstance(make_reporter(terminal), Lines)
    finally:
        os.close(leader)


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other side is closed
        return b""


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            shown = make_reporter(terminal)
            assert isinstance(shown, Bars)
            cell = make_cell("ok")
            shown.begin(cells=1, finished=0, slots=1)
            shown.cell_started(cell)
            shown.cell_ended(cell, make_record(cell))
            shown.end()
        printed = b"".join(iter(lambda: read(leader), b"")).decode()
    finally:
        os.close(leader)
    assert "[1/1] ok: ok" in printed
    assert "\x1b[3" not in printed, "a colour was set"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (11045, "3:04:05")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_printable_text_stays() -> None:
    assert printable("Größe µ α→β") == "Größe µ α→β"
    assert printable("a\tb\u202e") == r"a\tb\u202e"


def test_a_count_is_lines_now_and_then(clock: FakeClock) -> None:
    stream = io.StringIO()
    with Count("estimating", "estimated", total=5, stream=stream, clock=clock) as count:
        for clock.now in (4, 16, 20, 24, 50):
            count.step()
        count.message("a\x1b[2J warning")
    assert stream.getvalue().splitlines() == [
        "estimating 5 cells",
        "estimated 2/5, about 0:24 left",
        r"a\x1b[2J warning",
    ]


def test_a_count_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as tty, Count("estimating", "estimated", total=2, stream=tty) as count:
            count.step()
            count.message("a [bold]warning")
            count.step()
        printed = b"".join(iter(lambda: read(leader), b"")).decode()
    finally:
        os.close(leader)
    assert "estimating 2 cells" in printed
    assert "2/2" in printed
    assert "a [bold]warning" in printed
    assert "\x1b[?25h" in printed, "the cursor is given back"

"""Lines and bars say what runs, how far it is and how long it takes, and never pass on control characters."""

from __future__ import annotations

import io

import pytest

from bench.execution.contracts import Progress
from bench.execution.progress import Count, Reporter, duration
from bench.records.record import Status
from tests.factories import failed_record, make_record
from tests.sweeps import make_cell


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_lines_at_each_phase_and_every_15_seconds(clock: FakeClock) -> None:
    stream = io.StringIO()
    lines = Reporter(stream, clock=clock)
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


def test_the_time_left_is_shared_by_slots_and_ignores_crashes(clock: FakeClock) -> None:
    stream = io.StringIO()
    lines, cell = Reporter(stream, clock=clock), make_cell("a")
    lines.begin(cells=6, finished=0, slots=2)
    for status in (Status.CRASHED, Status.OK, Status.CRASHED):
        lines.cell_started(cell)
        clock.now += 60 * (status is Status.OK)
        lines.cell_ended(cell, make_record(cell, status=status))
    assert [line.partition("(")[2] for line in stream.getvalue().splitlines()[1::2]] == [
        "time left unknown)",
        "about 2:00 left)",
        "about 1:30 left)",
    ]


def test_bars_show_cells_and_all(terminal: Terminal) -> None:
    shown, cell = Reporter(terminal), make_cell("F-LoRA [bold] rank=4")
    shown.begin(cells=2, finished=0, slots=1)
    shown.cell_started(cell)
    shown.cell_progress(cell, Progress(phase="train", done=40, total=80, note="loss 0.412"))
    assert shown._screen.bars
    shown._screen.bars.refresh()
    shown.cell_ended(cell, make_record(cell))
    shown.end()
    for text in ("train 40/80  loss 0.412", "all cells", "0/2", "[1/2] F-LoRA [bold] rank=4: ok"):
        assert text in terminal.getvalue()
    assert "\x1b[?25h" in terminal.getvalue(), "the cursor is back"
    assert "\x1b[3" not in terminal.getvalue(), "NO_COLOR was set"


@pytest.mark.parametrize("bars", [True, False])
def test_hostile_labels_cannot_move_the_cursor(terminal: Terminal, bars: bool) -> None:
    stream = terminal if bars else io.StringIO()
    shown, cell = Reporter(stream), make_cell("\x1b[2Jevil\nforged: line\r")
    shown.begin(cells=1, finished=0, slots=1)
    shown.cell_started(cell)
    shown.cell_progress(cell, Progress(phase="train", done=1, total=2, note="\x1b]0;title\x07"))
    shown.cell_ended(cell, make_record(cell))
    shown.end()
    for bad in ("\x1b[2Jevil", "evil\n", "\x1b]0;"):
        assert bad not in stream.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    Reporter(terminal).end()  # without begin
    monkeypatch.setenv("TERM", "dumb")
    shown = Reporter(terminal)
    shown.begin(cells=1, finished=0, slots=1)
    shown.cell_started(make_cell("ok"))
    assert terminal.getvalue().endswith("[1/1] ok: started\n")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (11045, "3:04:05")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_count_is_lines_now_and_then(clock: FakeClock) -> None:
    stream = io.StringIO()
    with Count("estimating", "estimated", total=5, stream=stream, clock=clock) as count:
        for clock.now in (4, 16, 20, 24, 50):
            count.step()
        count.message("a\x1b[2J warning")
    assert stream.getvalue().splitlines() == [
        "estimating 5 cells",
        "estimated 2/5, about 0:24 left",
        "a\\x1b[2J warning",
    ]


def test_a_count_is_a_bar_on_a_terminal(terminal: Terminal) -> None:
    with Count("estimating", "estimated", total=2, stream=terminal) as count:
        count.step()
        count.message("a [bold]warning")
        count.step()
    for text in ("estimating 2 cells", "2/2", "a [bold]warning", "\x1b[?25h"):
        assert text in terminal.getvalue()

"""What the user sees while cells run: bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

from bench.format import printable
from bench.plugins.execution import Progress
from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import TaskID

Clock = Callable[[], float]
_LINE_EVERY_S = 15.0
_PHASES = {
    "setup": (0.0, 0.02),
    "load": (0.02, 0.05),
    "train": (0.05, 0.85),
    "eval": (0.85, 1.0),
    "estimate": (1.0, 1.0),
}
"""Where in a cell's time a phase usually lies; only the time left depends on it."""


class Reporter(Protocol):
    """Told by the runner what happens."""

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        """A run of so many cells begins; some are finished already, ``slots`` run at a time."""

    def cell_started(self, cell: Cell) -> None: ...

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        """Called several times a second."""

    def cell_ended(self, cell: Cell, record: CellRecord) -> None: ...

    def message(self, text: str) -> None:
        """A warning or a hint, one or more lines."""

    def end(self) -> None:
        """The run is over, however it ended; may be called without ``begin``."""


class Silent:
    """Reports nothing."""

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        """Nothing."""

    def cell_started(self, cell: Cell) -> None:
        """Nothing."""

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        """Nothing."""

    def cell_ended(self, cell: Cell, record: CellRecord) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


def make_reporter(stream: TextIO | None = None) -> Reporter:
    """Bars if the stream (stderr) is a terminal that can move its cursor, else lines."""
    stream = stream or sys.stderr
    if not _moves_cursor(stream):
        return Lines(stream)
    from rich.console import Console

    return Bars(Console(file=stream))


def _moves_cursor(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@dataclass(kw_only=True)
class _Running:
    number: int
    started: float
    progress: Progress | None = None
    phase: str = ""
    line_at: float = 0.0

    @property
    def share(self) -> float:
        """How much of the cell is done, 0 to 1, by its phase and steps."""
        if self.progress is None:
            return 0.0
        low, high = _PHASES.get(self.progress.phase, (0.0, 0.0))
        return low + (high - low) * (self.progress.done / self.progress.total if self.progress.total else 0.0)


@dataclass(kw_only=True)
class Tally:
    """Counts cells and predicts how long the rest will take."""

    cells: int
    done: int
    slots: int = 1
    clock: Clock = time.monotonic
    running: dict[str, _Running] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)

    def start(self, cell: Cell) -> _Running:
        """A cell begins."""
        number = self.done + len(self.running) + 1
        now = self.clock()
        self.running[cell.cell_id] = _Running(number=number, started=now, line_at=now)
        return self.running[cell.cell_id]

    def end(self, cell: Cell, status: Status) -> tuple[int, float]:
        """A cell ended: its number and how long it took, seconds."""
        running = self.running.pop(cell.cell_id)
        took = self.clock() - running.started
        self.done += 1
        if status is Status.OK:
            self.durations.append(took)
        return running.number, took

    def left_s(self) -> float | None:
        """Seconds until all cells are done, from finished cells and the running ones; null if nothing tells."""
        whole = [time_s for time_s in map(self._whole_s, self.running.values()) if time_s is not None]
        known = self.durations or whole
        if not known:
            return None
        mean = sum(known) / len(known)
        left = mean * (self.cells - self.done - len(self.running))
        for running in self.running.values():
            expected = self._whole_s(running) or mean
            left += max(expected - (self.clock() - running.started), 0.0)
        return left / min(self.slots, max(self.cells - self.done, 1))

    def _whole_s(self, running: _Running) -> float | None:
        """Predicted duration of a running cell, once it has done enough to tell."""
        return (self.clock() - running.started) / running.share if running.share >= 0.06 else None


class Lines:
    """A line per phase, and one every 15 seconds, for log files."""

    def __init__(self, stream: TextIO, *, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._tally = Tally(cells=0, done=0, clock=clock)

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        """Start counting."""
        self._tally = Tally(cells=cells, done=finished, slots=slots, clock=self._clock)

    def cell_started(self, cell: Cell) -> None:
        """Say so."""
        running = self._tally.start(cell)
        self._print(f"[{running.number}/{self._tally.cells}] {printable(cell.label, keep='')}: started")

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        """A line, if the phase changed or the last line is 15 seconds old."""
        running = self._tally.running[cell.cell_id]
        running.progress, changed = progress, progress.phase != running.phase
        running.phase = progress.phase
        now = self._clock()
        if changed or now - running.line_at >= _LINE_EVERY_S:
            running.line_at = now
            elapsed = duration(now - running.started)
            left = f", all cells {_left(self._tally.left_s())}" if not changed else ""
            count = f"[{running.number}/{self._tally.cells}]"
            self._print(f"{count} {printable(cell.label, keep='')}: {describe(progress)}, {elapsed} so far{left}")

    def cell_ended(self, cell: Cell, record: CellRecord) -> None:
        """A line with status and time."""
        number, took = self._tally.end(cell, record.status)
        count = f"[{number}/{self._tally.cells}]"
        left = f" ({_left(self._tally.left_s())})" if self._tally.done < self._tally.cells else ""
        self._print(f"{count} {printable(cell.label, keep='')}: {outcome(record)}, {duration(took)}{left}")

    def message(self, text: str) -> None:
        """As it is."""
        self._print(printable(text))

    def end(self) -> None:
        """Nothing to put back."""

    def _print(self, text: str) -> None:
        with suppress(OSError):  # a run goes on when nobody reads its lines any more
            print(text, file=self._stream, flush=True)


class Bars:
    """A bar per running cell and one for all, below a line for each ended cell."""

    def __init__(self, console: Console, *, clock: Clock = time.monotonic) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Display

        self._clock = clock
        self._tally = Tally(cells=0, done=0, clock=clock)
        self._tasks: dict[str, TaskID] = {}
        self._overall: TaskID | None = None
        self._display = Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
            refresh_per_second=5,
        )

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        """Show the bar of all cells."""
        self._tally = Tally(cells=cells, done=finished, slots=slots, clock=self._clock)
        self._overall = self._display.add_task("all cells", total=max(cells, 1), completed=finished, detail="")
        self._show_overall()
        if finished < cells:
            self._display.start()

    def cell_started(self, cell: Cell) -> None:
        """Add its bar."""
        self._tally.start(cell)
        self._tasks[cell.cell_id] = self._display.add_task(printable(cell.label, keep=""), total=1.0, detail="starting")

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        """Move its bar."""
        running = self._tally.running[cell.cell_id]
        running.progress = progress
        elapsed = duration(self._clock() - running.started)
        detail = f"{describe(progress)}  {elapsed}"
        self._display.update(self._tasks[cell.cell_id], completed=running.share, detail=detail)
        self._show_overall()

    def cell_ended(self, cell: Cell, record: CellRecord) -> None:
        """Replace its bar by a line."""
        number, took = self._tally.end(cell, record.status)
        self._display.remove_task(self._tasks.pop(cell.cell_id))
        self.message(
            f"[{number}/{self._tally.cells}] {printable(cell.label, keep='')}: {outcome(record)}, {duration(took)}"
        )
        self._show_overall()

    def message(self, text: str) -> None:
        """Above the bars."""
        self._display.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bars away and give the cursor back."""
        self._display.stop()

    def _show_overall(self) -> None:
        assert self._overall is not None, "begin comes first"
        tally = self._tally
        shares = sum(running.share for running in tally.running.values())
        detail = f"{tally.done}/{tally.cells}  {_left(tally.left_s())}"
        self._display.update(self._overall, completed=tally.done + shares, detail=detail)


class Count:
    """How many of many short jobs are done: a bar on a terminal, a line now and then elsewhere."""

    def __init__(
        self, doing: str, done: str, *, total: int, stream: TextIO | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._words, self._total, self._done = (doing, done), total, 0
        self._stream, self._clock = stream or sys.stderr, clock
        self._started = self._line_at = clock()
        self._bar: Display | None = None

    def __enter__(self) -> Count:
        text = f"{self._words[0]} {self._total} cell{'s' * (self._total != 1)}"
        if _moves_cursor(self._stream):
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Display

            columns = (TextColumn(text), BarColumn(bar_width=24), TextColumn("{task.fields[detail]}"))
            self._bar = Display(*columns, console=Console(file=self._stream), transient=True, refresh_per_second=5)
            self._bar.add_task("", total=max(self._total, 1), detail=self._detail())
            self._bar.start()
        else:
            self._print(text)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done, detail=self._detail())
        elif self._done < self._total and self._clock() - self._line_at >= _LINE_EVERY_S:
            self._line_at = self._clock()
            self._print(f"{self._words[1]} {self._detail()}")

    def message(self, text: str) -> None:
        """Above the bar."""
        if self._bar:
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(printable(text))

    def _detail(self) -> str:
        spent = self._clock() - self._started
        left = spent / self._done * (self._total - self._done) if self._done else None
        return f"{self._done}/{self._total}, {_left(left)}"

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def describe(progress: Progress) -> str:
    """``train 120/300  loss 0.412``."""
    count = f" {progress.done}/{progress.total}" if progress.total else ""
    note = f"  {printable(progress.note, keep='')}" if progress.note else ""
    return f"{progress.phase}{count}{note}"


def outcome(record: CellRecord) -> str:
    """Status, and why if it is not ``ok``."""
    if record.error is None:
        return str(record.status)
    first = (record.error.message.splitlines() or [""])[0]
    return f"{record.status} ({printable(first[:200], keep='')})"


def duration(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``3:04:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"

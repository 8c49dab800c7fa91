"""Progress display of running cells: bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from bench.execution.contracts import Progress
from bench.format import counted, printable
from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell

if TYPE_CHECKING:  # rich is slow to import
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
"""Phase -> usual start and end as shares of the time of a cell; only the time left depends on it."""


class _Screen:
    """Messages on a stream; below them bars, if the stream is a terminal that can move its cursor."""

    def __init__(self, stream: TextIO | None, text: str = "{task.description}") -> None:
        self.stream = stream or sys.stderr
        self.bars = None
        if self.stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            columns = TextColumn(text, markup=False), BarColumn(bar_width=24)
            detail = TextColumn("{task.fields[detail]}", markup=False)
            console = Console(file=self.stream)
            self.bars = Bars(*columns, detail, console=console, transient=True, refresh_per_second=5)

    def print(self, text: str) -> None:
        if self.bars:
            self.bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            with suppress(OSError):  # a run goes on when nobody reads its lines any more
                print(text, file=self.stream, flush=True)


@dataclass(kw_only=True)
class _Running:
    number: int
    started: float
    line_at: float
    phase: str = ""
    share: float = 0.0
    """Share of the cell that is done, 0 to 1, by its phase and steps."""
    task: TaskID | None = None


class Reporter:
    """Shows a run: bars of the running cells and of all, or a line per phase and one every 15 seconds."""

    def __init__(self, stream: TextIO | None = None, *, clock: Clock = time.monotonic) -> None:
        """``stream``: stderr unless given."""
        self._screen = _Screen(stream)
        self._clock = clock
        self._cells, self._done, self._slots = 0, 0, 1
        self._running: dict[str, _Running] = {}
        self._durations: list[float] = []
        self._all: TaskID | None = None

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        """A run of ``cells`` begins; ``finished`` of them are done already, ``slots`` run at a time."""
        self._cells, self._done, self._slots = cells, finished, slots
        if bars := self._screen.bars:
            self._all = bars.add_task("all cells", total=max(cells, 1), completed=finished, detail="")
            self._show_all()
            if finished < cells:
                bars.start()

    def cell_started(self, cell: Cell) -> None:
        """The cell runs from now on."""
        now = self._clock()
        running = _Running(number=self._done + len(self._running) + 1, started=now, line_at=now)
        self._running[cell.cell_id] = running
        if bars := self._screen.bars:
            running.task = bars.add_task(printable(cell.label, keep=""), total=1.0, detail="starting")
        else:
            self._print(running, cell, "started")

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        """Progress of the cell; called several times a second."""
        running, now = self._running[cell.cell_id], self._clock()
        low, high = _PHASES.get(progress.phase, (0.0, 0.0))
        running.share = low + (high - low) * (progress.done / progress.total if progress.total else 0.0)
        changed, running.phase = progress.phase != running.phase, progress.phase
        elapsed = duration(now - running.started)
        if (bars := self._screen.bars) and running.task is not None:
            bars.update(running.task, completed=running.share, detail=f"{_describe(progress)}  {elapsed}")
            self._show_all()
        elif changed or now - running.line_at >= _LINE_EVERY_S:
            running.line_at = now
            left = "" if changed else f", all cells {_left(self._left_s())}"
            self._print(running, cell, f"{_describe(progress)}, {elapsed} so far{left}")

    def cell_ended(self, cell: Cell, record: CellRecord) -> None:
        """The cell has its record."""
        running = self._running.pop(cell.cell_id)
        took = self._clock() - running.started
        self._done += 1
        if record.status is Status.OK:
            self._durations.append(took)
        bars, left = self._screen.bars, ""
        if bars and running.task is not None:
            bars.remove_task(running.task)
        elif self._done < self._cells:
            left = f" ({_left(self._left_s())})"
        self._print(running, cell, f"{outcome(record)}, {duration(took)}{left}")
        self._show_all()

    def message(self, text: str) -> None:
        """Show a warning or a hint of one or more lines above the bars."""
        self._screen.print(printable(text))

    def end(self) -> None:
        """The run is over, however it ended; may be called without ``begin``. Restores the cursor."""
        if self._screen.bars:
            self._screen.bars.stop()

    def _print(self, running: _Running, cell: Cell, text: str) -> None:
        self._screen.print(f"[{running.number}/{self._cells}] {printable(cell.label, keep='')}: {text}")

    def _show_all(self) -> None:
        if self._screen.bars and self._all is not None:
            shares = sum(running.share for running in self._running.values())
            detail = f"{self._done}/{self._cells}  {_left(self._left_s())}"
            self._screen.bars.update(self._all, completed=self._done + shares, detail=detail)

    def _left_s(self) -> float | None:
        """Seconds until all cells are done, from finished cells or else the running ones; None if unknown."""
        predicted = map(self._whole_s, self._running.values())
        known = self._durations or [time_s for time_s in predicted if time_s is not None]
        if not known:
            return None
        mean = sum(known) / len(known)
        left = mean * (self._cells - self._done - len(self._running))
        for running in self._running.values():
            left += max((self._whole_s(running) or mean) - (self._clock() - running.started), 0.0)
        return left / min(self._slots, max(self._cells - self._done, 1))

    def _whole_s(self, running: _Running) -> float | None:
        """Predicted duration of a running cell; None until enough of it is done."""
        return (self._clock() - running.started) / running.share if running.share >= 0.06 else None


class Count:
    """Progress of many short jobs: a bar on a terminal, an occasional line elsewhere."""

    def __init__(
        self, doing: str, done: str, *, total: int, stream: TextIO | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._title = f"{doing} {counted(total, 'cell')}"
        self._verb, self._total, self._done = done, total, 0
        self._screen, self._clock = _Screen(stream, self._title), clock
        self._started = self._line_at = clock()

    def __enter__(self) -> Count:
        if bars := self._screen.bars:
            bars.add_task("", total=max(self._total, 1), detail=self._detail())
            bars.start()
        else:
            self._screen.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen.bars:
            self._screen.bars.stop()

    def step(self) -> None:
        """A job is done."""
        self._done += 1
        if bars := self._screen.bars:
            bars.update(bars.task_ids[0], completed=self._done, detail=self._detail())
        elif self._done < self._total and self._clock() - self._line_at >= _LINE_EVERY_S:
            self._line_at = self._clock()
            self._screen.print(f"{self._verb} {self._detail()}")

    def message(self, text: str) -> None:
        """Show one or more lines above the bar."""
        self._screen.print(printable(text))

    def _detail(self) -> str:
        spent = self._clock() - self._started
        left = spent / self._done * (self._total - self._done) if self._done else None
        return f"{self._done}/{self._total}, {_left(left)}"


def outcome(record: CellRecord) -> str:
    """Status, with the reason if it is not ``ok``."""
    if record.error is None:
        return str(record.status)
    first = (record.error.message.splitlines() or [""])[0]
    return f"{record.status} ({printable(first[:200], keep='')})"


def duration(seconds: float) -> str:
    """``0:07``, ``12:34`` or ``3:04:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _describe(progress: Progress) -> str:
    """``train 120/300  loss 0.412``."""
    count = f" {progress.done}/{progress.total}" if progress.total else ""
    note = f"  {printable(progress.note, keep='')}" if progress.note else ""
    return f"{progress.phase}{count}{note}"


def _left(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"about {duration(seconds)} left"

"""Contracts of executors and trackers, and what runner and worker exchange through files of the job folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from bench.plugins.settings import TrackerSettings
from bench.records.record import CellRecord
from bench.spec.cell import Cell

EVENTS_FILE = "events.jsonl"
"""In the job folder of a cell that trackers follow: one ``Step`` or ``PhaseEnd`` per line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Progress that a worker last wrote to ``progress.json`` in the job folder of its cell."""

    phase: str
    """``setup``, ``load``, ``train`` or ``eval``; ``estimate`` after the record is written."""
    done: int = 0
    total: int = 0
    """Steps in training, questions in evaluation; 0 if nothing is counted."""
    note: str = ""
    """E.g. ``loss 0.412``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A finished optimizer step."""

    step: int
    """From 0."""
    loss: float
    """Mean over the step's examples."""
    lr: float
    step_s: float | None
    """Seconds, as in ``Time.step_median_s``; null for a warm-up step, which is not timed."""
    at: float
    """Unix time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseEnd:
    """End of a phase, also by a failure."""

    phase: str
    """As in ``Progress``."""
    seconds: float
    allocated_peak_bytes: int | None
    """CUDA peaks as in ``PhaseMemory``; null without CUDA."""
    reserved_peak_bytes: int | None
    at: float
    """Unix time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessExit:
    """How a cell's process ended, with or without a result."""

    returncode: int
    """Exit code, or minus the number of the signal that ended it."""
    passed_limit: Literal["wall_clock", "no_progress"] | None = None
    """Limit for which the executor ended it."""
    host_out_of_memory: bool = False
    """Whether the kernel is known to have killed it because host memory was exhausted."""
    stuck_pid: int | None = None
    """Id of a process that no signal ends, e.g. as it waits in a driver; it still holds its device."""


class RunningCell(Protocol):
    """A started cell."""

    device: str
    """``cpu`` or the GPU's name."""

    def poll(self) -> ProcessExit | None:
        """Exit of the process, or None while it runs. Enforces the cell's limits; leaves no process behind."""
        ...

    def cancel(self, *, grace_s: float) -> None:
        """End it with all its descendants: SIGTERM first, SIGKILL after ``grace_s`` seconds."""
        ...


class Executor(Protocol):
    """Runs each cell in a process that writes ``result.json`` into the job folder."""

    @property
    def slots(self) -> int:
        """Number of cells that run at a time; lower, perhaps 0, while a stuck worker holds a device."""
        ...

    in_process: bool
    """Whether ``start`` returns only when the cell has ended."""

    def start(self, cell: Cell, job: Path) -> RunningCell:
        """Run the cell whose ``cell.json`` lies in the job folder."""
        ...


class ExecutorPlugin(Protocol):
    """A module in ``bench/executors``."""

    @staticmethod
    def create(cells: Sequence[Cell]) -> Executor:
        """An executor for these cells. Raises SpecError if it cannot run them on this machine."""
        ...


class Tracker(Protocol):
    """Logs a run beside its records.

    All calls come from one thread of the runner, none from a worker. Any exception turns the tracker off for the rest
    of the run, with a warning. Several cells may run at a time.
    """

    def start(self, cell: Cell) -> None:
        """The cell starts, perhaps again: logs of an earlier attempt no longer count."""
        ...

    def steps(self, cell: Cell, steps: Sequence[Step]) -> None:
        """Steps since the last call; steps may repeat after an interrupted run."""
        ...

    def phase_ended(self, cell: Cell, end: PhaseEnd) -> None: ...

    def end(self, cell: Cell, record: CellRecord, job: Path) -> None:
        """The cell has its record, however it ended; its files are in the folder ``job``. Called without ``start`` if
        the cell was skipped or its run was interrupted."""
        ...

    def close(self) -> None:
        """The run is over. A cell that was started and not ended was interrupted."""
        ...


class TrackerPlugin(Protocol):
    """A module in ``bench/trackers``; its top level stays light."""

    Settings: type[TrackerSettings]

    @staticmethod
    def check(settings: Any) -> None:
        """Raise SpecError if a package that the tracker needs is not installed. Called before anything runs; fast."""
        ...

    @staticmethod
    def create(settings: Any, folder: Path) -> Tracker:
        """Open the tracker. ``folder``: default folder for its files, which need not exist."""
        ...


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")

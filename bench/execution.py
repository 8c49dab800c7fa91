"""What an executor offers, and what runner and worker tell each other: typed contracts, as in ``bench.protocols``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cell import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What a worker last wrote to its progress file (``progress.json`` in the cell's job folder)."""

    phase: str
    """``setup``, ``load``, ``train`` or ``eval``."""
    done: int = 0
    total: int = 0
    """Steps in training, questions in evaluation; 0 where there is nothing to count."""
    note: str = ""
    """E.g. ``loss 0.412``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a cell's process ended; whether it left a result is another question."""

    returncode: int
    """Exit code; minus the signal's number if a signal ended it."""
    passed_limit: Literal["wall_clock", "no_progress"] | None = None
    """The limit for which the executor ended it."""
    host_out_of_memory: bool = False
    """The kernel is known to have killed it for want of host memory."""


class RunningCell(Protocol):
    """A cell that was started."""

    device: str
    """``cpu`` or the GPU's name."""

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs. Enforces the cell's limits; leaves no process behind."""
        ...

    def cancel(self, *, grace_s: float) -> None:
        """End it with all its descendants: asked first, killed after ``grace_s`` seconds."""
        ...


class Executor(Protocol):
    """Gives cells a process. Whatever it starts writes ``result.json`` into the job folder."""

    slots: int
    """How many cells it runs at a time."""
    in_process: bool
    """Whether ``start`` returns only when the cell has ended."""

    def start(self, cell: Cell, job: Path) -> RunningCell:
        """Run the cell whose ``cell.json`` lies in the job folder."""
        ...


class ExecutorPlugin(Protocol):
    """A file in ``bench/executors``."""

    @staticmethod
    def create(cells: Sequence[Cell]) -> Executor:
        """An executor for these cells. Raises SpecError if it cannot run them here."""
        ...

"""Inline executor: each cell in this process, for debugging (breakpoints, tracebacks); no limits, no log file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.plugins.execution import Ended
from bench.spec.cell import Cell


def create(cells: Sequence[Cell]) -> InlineExecutor:  # noqa: ARG001
    """The executor; it runs any cell."""
    return InlineExecutor()


class InlineExecutor:
    """Runs a cell where it is started."""

    in_process = True
    slots = 1

    def start(self, cell: Cell, job: Path) -> InlineCell:
        """Run the cell to its end."""
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's, as in a worker; CUDA reads it when it starts
        from bench.worker.run import run_and_estimate  # the only place where the runner's process imports torch

        record = run_and_estimate(cell, job, job / "result.json")
        return InlineCell(str(record.environment.get("device", "cpu")))


class InlineCell:
    """A cell that has ended."""

    def __init__(self, device: str) -> None:
        self.device = device

    def poll(self) -> Ended:
        """It left a result."""
        return Ended(returncode=0)

    def cancel(self, *, grace_s: float) -> None:
        """Nothing is left to end."""

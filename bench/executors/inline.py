"""Inline executor: each cell in this process, for debugging (breakpoints, tracebacks); no limits, no log file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bench.execution.contracts import ProcessExit
from bench.spec.cell import Cell


def create(cells: Sequence[Cell]) -> InlineExecutor:  # noqa: ARG001
    """An executor for any cell."""
    return InlineExecutor()


class InlineExecutor:
    """Runs a cell where it is started."""

    in_process = True
    slots = 1

    def start(self, cell: Cell, job: Path) -> FinishedCell:
        """Run the cell to its end."""
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's order, as in a worker; CUDA reads it when it starts
        from bench.worker.run import run_and_estimate  # the only place where the runner's process imports torch

        record = run_and_estimate(cell, job, job / "result.json")
        return FinishedCell(str(record.environment.get("device", "cpu")))


class FinishedCell:
    """A cell that left a result."""

    def __init__(self, device: str) -> None:
        self.device = device

    def poll(self) -> ProcessExit:
        """The exit of a worker that wrote its result."""
        return ProcessExit(returncode=0)

    def cancel(self, *, grace_s: float) -> None:
        """Nothing is left to end."""

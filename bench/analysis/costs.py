"""What ``--estimate`` says of a cell: its estimate beside the budget, what was measured, and the other cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records.costs import Estimate, PredictedMemory
from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """One cell's."""

    cell: Cell
    estimate: Estimate
    measured: Mapping[str, int]
    """Peaks of a run that ended well, bytes, under the names of ``--json``; empty if there was none on a GPU."""
    budget_bytes: int | None
    relative_train_time: float | None
    """FLOPs of a training step, divided by those of the costliest cell shown; null if not counted."""

    @property
    def margin_bytes(self) -> int | None:
        """Budget minus what the process needs; null without a budget or a prediction."""
        memory = self.estimate.memory
        return None if memory is None or self.budget_bytes is None else self.budget_bytes - memory.process_peak_bytes

    @property
    def fits(self) -> bool | None:
        return None if self.margin_bytes is None else self.margin_bytes >= 0

    @property
    def relative_error(self) -> dict[str, float]:
        """Predicted minus measured, divided by measured, of every peak that was measured and predicted."""
        predicted = _peaks(self.estimate.memory) if self.estimate.memory else {}
        return {
            name: predicted[name] / measured - 1
            for name, measured in self.measured.items()
            if measured and name in predicted
        }

    def as_json(self) -> dict[str, Any]:
        """An element of ``records``."""
        budget = {"bytes": self.budget_bytes, "fits": self.fits, "margin_bytes": self.margin_bytes}
        return self.cell.model_dump(mode="json", include={"cell_id", "label", "labels", "parts", "seed"}) | {
            "estimate": self.estimate.model_dump(mode="json"),
            "budget": None if self.budget_bytes is None else budget,
            "measured": dict(self.measured) or None,
            "relative_error": self.relative_error or None,
            "relative_train_time": self.relative_train_time,
        }


def compare(
    cells: Sequence[Cell],
    estimates: Mapping[str, Estimate],
    records: Mapping[str, CellRecord],
    *,
    budget_bytes: int | None,
) -> list[Costs]:
    """The costs of cells beside each other."""
    steps = {cell.cell_id: _train_step(estimates[cell.cell_id]) for cell in cells}
    most = max((flops for flops in steps.values() if flops is not None), default=0)
    return [
        Costs(
            cell=cell,
            estimate=estimates[cell.cell_id],
            measured=_measured(records.get(cell.cell_id)),
            budget_bytes=budget_bytes,
            relative_train_time=flops / most if most and (flops := steps[cell.cell_id]) is not None else None,
        )
        for cell in cells
    ]


def _train_step(estimate: Estimate) -> int | None:
    return estimate.flops.train_step if estimate.flops else None


def _peaks(memory: PredictedMemory) -> dict[str, int]:
    train, evaluation = memory.train, memory.eval
    trained = {
        "train_allocated_peak_bytes": train.allocated_peak_bytes,
        "train_reserved_peak_bytes": train.reserved_peak_bytes,
    } if train else {}  # fmt: skip
    return trained | {
        "eval_allocated_peak_bytes": evaluation.allocated_peak_bytes,
        "eval_reserved_peak_bytes": evaluation.reserved_peak_bytes,
        "nvml_process_peak_bytes": memory.process_peak_bytes,
    }


def _measured(record: CellRecord | None) -> dict[str, int]:
    if record is None or record.status is not Status.OK:
        return {}
    train, evaluation = record.memory.train, record.memory.eval
    peaks = {
        "train_allocated_peak_bytes": train.allocated_peak_bytes,
        "train_reserved_peak_bytes": train.reserved_peak_bytes,
        "eval_allocated_peak_bytes": evaluation.allocated_peak_bytes,
        "eval_reserved_peak_bytes": evaluation.reserved_peak_bytes,
        "nvml_process_peak_bytes": record.memory.nvml_process_peak_bytes,
    }
    return {name: peak for name, peak in peaks.items() if peak is not None}

"""Costs of cells as ``--estimate`` shows them: estimate, budget, measured peaks, and time relative to other cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records.costs import Estimate, PredictedMemory
from bench.records.record import CellRecord, Memory, Status
from bench.spec.cell import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Costs of one cell."""

    cell: Cell
    estimate: Estimate
    measured: Mapping[str, int]
    """Peaks of a completed run, bytes, under the names of ``--json``; empty if there was none on a GPU."""
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
        pairs = {name: (predicted[name], peak) for name, peak in self.measured.items() if peak and name in predicted}
        return {name: ours / theirs - 1 for name, (ours, theirs) in pairs.items()}

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
    """The costs of cells beside each other; ``estimates`` and ``records`` by ``cell_id``."""
    steps = {key: found.flops.train_step if found.flops else None for key, found in estimates.items()}
    most = max((steps[cell.cell_id] or 0 for cell in cells), default=0)
    costs = []
    for cell in cells:
        step, record = steps[cell.cell_id], records.get(cell.cell_id)
        costs.append(
            Costs(
                cell=cell,
                estimate=estimates[cell.cell_id],
                measured=_peaks(record.memory) if record and record.status is Status.OK else {},
                budget_bytes=budget_bytes,
                relative_train_time=None if step is None or not most else step / most,
            )
        )
    return costs


def _peaks(memory: Memory | PredictedMemory) -> dict[str, int]:
    """Peaks that are known, bytes."""
    peaks: dict[str, int | None] = {}
    for name, phase in (("train", memory.train), ("eval", memory.eval)):
        for kind in ("allocated", "reserved"):
            peaks[f"{name}_{kind}_peak_bytes"] = getattr(phase, f"{kind}_peak_bytes", None)
    process = memory.nvml_process_peak_bytes if isinstance(memory, Memory) else memory.process_peak_bytes
    peaks["nvml_process_peak_bytes"] = process
    return {name: peak for name, peak in peaks.items() if peak is not None}

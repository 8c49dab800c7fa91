"""Costs without a run: what ``--estimate`` shows, and which cells a ``--budget`` keeps from running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import environment
from bench.errors import SpecError
from bench.estimate.gpus import DEFAULT, GPUS, generation
from bench.estimate.pool import estimate_all
from bench.execution.progress import Count
from bench.execution.runner import OverBudget
from bench.records.costs import Estimate, PredictedMemory
from bench.registry import did_you_mean
from bench.spec.cell import Cell
from bench.units import gib, size_text


@dataclass(frozen=True, kw_only=True, slots=True)
class AssumedGpu:
    """A generation of GPUs that estimates are for."""

    name: str
    reason: str
    """Reason for the choice, for a caption."""

    def __str__(self) -> str:
        """``an ampere GPU``."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name} GPU"


def assumed_gpu(named: str | None) -> AssumedGpu:
    """The named generation, else that of the first visible NVIDIA GPU, else the default. Raises SpecError."""
    if named is not None:
        if named not in GPUS:
            raise SpecError(f"--gpu {named!r} is not known{did_you_mean(named, tuple(GPUS))}")
        return AssumedGpu(name=named, reason="as asked for")
    gpus = environment.visible_gpus()
    if not gpus:
        return AssumedGpu(name=DEFAULT, reason="the default, since no NVIDIA GPU is visible; see --gpu")
    name = generation(gpus[0].capability) if gpus[0].capability else None
    if name is None:
        return AssumedGpu(name=DEFAULT, reason=f"the default, since that of {gpus[0].name} is not known; see --gpu")
    return AssumedGpu(name=name, reason=f"as the {gpus[0].name} that is visible")


def estimate(
    cells: Sequence[Cell], *, gpu: AssumedGpu, max_batch_bytes: int | None = None
) -> tuple[dict[str, Estimate], set[str]]:
    """Estimate the cells in processes side by side, with progress on stderr.

    Returns estimates by ``cell_id``, and the ids of cells whose estimate failed by an internal error.
    """
    with Count("estimating", "estimated", total=len(cells)) as count:
        return _estimate(cells, count, gpu=gpu.name, max_batch_bytes=max_batch_bytes)


def count_parameters(cells: Sequence[Cell]) -> dict[str, Estimate]:
    """``cell_id`` -> estimate of parameters and adapter size alone."""
    with Count("counting parameters", "counted", total=len(cells)) as count:
        return _estimate(cells, count, gpu=DEFAULT, counts_only=True)[0]


def check_budget(
    cells: Sequence[Cell], *, gpu: AssumedGpu, budget_bytes: int, warn: Callable[[str], None]
) -> dict[str, OverBudget]:
    """Cells whose process needs more than the budget, by ``cell_id``; warns of each whose memory is unknown."""
    estimates, _ = estimate(cells, gpu=gpu)
    over = {}
    for cell in cells:
        memory = estimates[cell.cell_id].memory
        if memory is None:
            why = "; ".join(estimates[cell.cell_id].refused) or "no reason given"
            warn(f"warning: {cell.label}: runs without a check of the budget, since its memory is unknown ({why})")
        elif memory.process_peak_bytes > budget_bytes:
            reason = _does_not_fit(memory, gpu, budget_bytes)
            over[cell.cell_id] = OverBudget(reason=reason, estimate=estimates[cell.cell_id])
    return over


def _estimate(cells: Sequence[Cell], count: Count, **options: Any) -> tuple[dict[str, Estimate], set[str]]:
    failed: set[str] = set()
    shown: set[str] = set()

    def done(cell: Cell, _: Estimate, failure: str | None) -> None:
        if failure is not None:
            failed.add(cell.cell_id)
            if failure not in shown:  # seeds share one
                shown.add(failure)
                count.message(f"{cell.label}: {failure}")
        count.step()

    return estimate_all(cells, on_done=done, **options), failed


def _does_not_fit(memory: PredictedMemory, gpu: AssumedGpu, budget_bytes: int) -> str:
    """``needs 26.31 GiB on an ampere GPU (predicted: 25.41 reserved in training + 0.90 context), budget 24 GiB``."""
    train, evaluation = memory.train, memory.eval
    training = train is not None and train.reserved_peak_bytes >= evaluation.reserved_peak_bytes
    reserved = memory.process_peak_bytes - memory.context_bytes
    return (
        f"needs {gib(memory.process_peak_bytes)} GiB on {gpu} (predicted: {gib(reserved)} reserved in "
        f"{'training' if training else 'evaluation'} + {gib(memory.context_bytes)} context), "
        f"budget {size_text(budget_bytes)}"
    )

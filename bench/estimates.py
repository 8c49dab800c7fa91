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

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class AssumedGpu:
    """A generation of GPUs and, in words, why it was taken."""

    name: str
    reason: str

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
    found = generation(gpus[0].capability) if gpus[0].capability else None
    if found is None:
        return AssumedGpu(name=DEFAULT, reason=f"the default, since that of {gpus[0].name} is not known; see --gpu")
    return AssumedGpu(name=found, reason=f"as the {gpus[0].name} that is visible")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """Estimates of cells by ``cell_id``, and which of them failed."""

    estimates: dict[str, Estimate]
    failed: set[str]
    """Cells whose estimate failed through a fault of ours, rather than being refused."""


def estimate(cells: Sequence[Cell], *, gpu: AssumedGpu, max_batch_bytes: int | None = None) -> Estimates:
    """Estimate the cells in processes side by side; progress, and what failed, on stderr."""
    with Count("estimating", "estimated", total=len(cells)) as count:
        return _estimate(cells, count, gpu=gpu.name, max_batch_bytes=max_batch_bytes)


def count_parameters(cells: Sequence[Cell]) -> Estimates:
    """As ``estimate``, but of parameters and the adapter's size only."""
    with Count("counting parameters", "counted", total=len(cells)) as count:
        return _estimate(cells, count, gpu=DEFAULT, counts_only=True)


def _estimate(cells: Sequence[Cell], count: Count, **options: Any) -> Estimates:
    failed: set[str] = set()
    told: set[str] = set()

    def done(cell: Cell, _: Estimate, failure: str | None) -> None:
        if failure is not None:
            failed.add(cell.cell_id)
            if failure not in told:  # seeds share one
                told.add(failure)
                count.message(f"{cell.label}: {failure}")
        count.step()

    found = estimate_all(cells, on_done=done, **options)
    return Estimates(estimates=found, failed=failed)


def find_unfit(cells: Sequence[Cell], *, gpu: AssumedGpu, budget_bytes: int, warn: Say) -> dict[str, OverBudget]:
    """The cells whose process needs more than the budget; a warning for each whose memory is not known."""
    found = estimate(cells, gpu=gpu).estimates
    unfit = {}
    for cell in cells:
        one = found[cell.cell_id]
        if one.memory is None:
            why = "; ".join(one.refused) or "no reason given"
            warn(f"warning: {cell.label}: runs without a look at the budget, since its memory is not known ({why})")
        elif one.memory.process_peak_bytes > budget_bytes:
            unfit[cell.cell_id] = OverBudget(reason=does_not_fit(one.memory, gpu, budget_bytes), estimate=one)
    return unfit


def does_not_fit(memory: PredictedMemory, gpu: AssumedGpu, budget_bytes: int) -> str:
    """``needs 26.31 GiB on an ampere GPU (predicted: 25.41 reserved in training + 0.90 context), budget 24 GiB``."""
    train, evaluation = memory.train, memory.eval
    training = train is not None and train.reserved_peak_bytes >= evaluation.reserved_peak_bytes
    reserved = memory.process_peak_bytes - memory.context_bytes
    return (
        f"needs {gib(memory.process_peak_bytes)} GiB on {gpu} (predicted: {gib(reserved)} reserved in "
        f"{'training' if training else 'evaluation'} + {gib(memory.context_bytes)} context), "
        f"budget {size_text(budget_bytes)}"
    )

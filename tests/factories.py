"""Makers of cells and records for tests: the real classes, plausible values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.records.costs import MEMORY_KINDS, Estimate, Flops, Params, PartParams, PredictedMemory, PredictedPhase
from bench.records.record import CellRecord, Failure, Memory, PhaseMemory, Status, Time
from bench.records.scores import Accuracy, Baseline, Share
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.spec.sections import Spec

GIB = 2**30
N_OPEN, N_CLOSED = 706, 355


def load_cells(
    path: Path, scale: str = "paper", *, sets: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> tuple[Spec, list[Cell]]:
    """A spec file and its cells."""
    resolved = read_spec(path).resolve(scale, sets, seeds)
    return resolved.spec, expand(resolved)


def accuracy(open_correct: int, closed_correct: int, n_open: int = N_OPEN, n_closed: int = N_CLOSED) -> Accuracy:
    """With baselines that answer 45.75 % of the open and 70.99 % of the closed questions."""
    return Accuracy(**_scores(open_correct, closed_correct, n_open, n_closed), baselines=baselines(n_open, n_closed))


def baselines(n_open: int = N_OPEN, n_closed: int = N_CLOSED) -> dict[str, Baseline]:
    shares = {"always_yes": (0.0, 0.493), "always_no": (0.0, 0.507), "question_only": (0.4575, 0.7099)}
    return {
        name: Baseline(**_scores(round(n_open * open_), round(n_closed * closed), n_open, n_closed))
        for name, (open_, closed) in shares.items()
    }


def _scores(open_correct: int, closed_correct: int, n_open: int, n_closed: int) -> dict[str, Any]:
    return {
        "open": Share(correct=open_correct, n=n_open),
        "closed": Share(correct=closed_correct, n=n_closed),
        "overall": Share(correct=open_correct + closed_correct, n=n_open + n_closed),
    }


def make_record(cell: Cell, index: int = 0, *, cuda: bool = True, **changes: Any) -> CellRecord:
    """A record of a cell that ended well; ``index`` varies the values, ``cuda`` says whether a GPU measured."""
    trainable = 580_000 * (index + 1) + 7 * cell.seed
    total = 361_478_972
    peak = int((5.2 + 2.3 * index) * GIB)
    phase = PhaseMemory(allocated_peak_bytes=peak, reserved_peak_bytes=peak + GIB // 2) if cuda else PhaseMemory()
    values: dict[str, Any] = {
        "cell_id": cell.cell_id,
        "spec": cell.spec,
        "scale": cell.scale,
        "label": cell.label,
        "labels": cell.labels,
        "parts": cell.parts,
        "seed": cell.seed,
        "status": Status.OK,
        "params": Params(
            trainable=trainable,
            total=total,
            pct=100 * trainable / total,
            stored=trainable,
            by_part={part: PartParams(trainable=0, total=1) for part in cell.parts},
        ),
        "memory": Memory(train=phase, eval=phase, host_rss_peak_bytes=3 * GIB),
        "time": Time(train_s=61.5 + index, eval_s=9.5, step_median_s=0.12, step_p95_s=0.15, samples_per_s=512.0),
        "energy_j": 8_100.0 if cuda else None,
        "accuracy": accuracy(min(25 + 58 * index + cell.seed % 7, N_OPEN), min(180 + 11 * index, N_CLOSED)),
        "environment": {"device": "NVIDIA A100" if cuda else "cpu"},
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:02:00Z",
    }
    return CellRecord(**(values | changes))


def failed_record(cell: Cell, status: Status, phase: str | None = None, step: int | None = None) -> CellRecord:
    """A record of a cell that did not end well: its pattern's parameters are known, nothing was measured."""
    error = Failure(type="OutOfMemoryError", message="CUDA out of memory", phase=phase, step=step)
    return make_record(cell, status=status, error=error, accuracy=None, memory=Memory(), time=Time(), energy_j=None)


def make_estimate(train_gib: float = 4.0, **changes: Any) -> Estimate:
    """An estimate with this allocated peak in training, 0.25 GiB less than reserved, and 0.5 GiB of context."""
    values: dict[str, Any] = {
        "params": Params(trainable=500_000, total=2_000_000, pct=25.0, stored=500_000, by_part={}),
        "memory": PredictedMemory(train=_phase(train_gib), eval=_phase(1.0), context_bytes=GIB // 2),
        "flops": Flops(train_forward=10**12, train_backward=10**12, train_step=2 * 10**12, eval_sample=3 * 10**9),
        "adapter_bytes": 2_000_000,
        "assumed": {"batch_size": 20},
    }
    return Estimate(**(values | changes))


def _phase(gib: float) -> PredictedPhase:
    peak = round(gib * GIB)
    kinds = dict.fromkeys(MEMORY_KINDS, 0) | {"weights": peak // 4, "activations": peak - peak // 4}
    return PredictedPhase(allocated_peak_bytes=peak, reserved_peak_bytes=peak + GIB // 4, by_kind=kinds)


def plugin(kind: registry.Kind, name: str) -> Any:
    """A plugin of whatever kind, with what it has beside its contract."""
    return registry.load(kind, name)

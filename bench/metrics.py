"""One function per metric: what a table column or an axis of the Pareto plot shows of a record.

A function returns the value in the metric's unit, the one papers print, or null if it was not measured.
Zero is a value like any other. Adding a metric is adding a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Literal

from bench import registry, tasks
from bench.errors import SpecError
from bench.plugins.contracts import ScoreFacts
from bench.records.costs import Params, PredictedMemory, PredictedPhase
from bench.records.record import CellRecord, Status
from bench.records.scores import Score
from bench.registry import did_you_mean

Direction = Literal["lower", "higher"]
"""Which values are better."""
Measure = Callable[[CellRecord], float | None]
Scored = Callable[[CellRecord], Score | None]

GIB = 2**30
"""What ``nvidia-smi`` and ``torch.cuda`` users (and the papers' "GB") divide bytes by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A quantity of a record and how it is printed and compared."""

    name: str
    header: str
    """Without the unit."""
    unit: str
    """Empty for a pure number."""
    digits: int
    """Digits printed after the point."""
    direction: Direction
    contest: bool
    """Whether the best value of a column is worth marking; not for what the pattern alone decides."""
    exact: bool
    """Whether the same run again gives the same value to the digits printed, so that any difference is one."""
    value: Measure
    score: Scored | None = None
    """For a metric of a task: the raw score, with its numerator and denominator."""
    predicted: Measure | None = None
    """What the cell's estimate says of it, in the same unit."""

    def published(self, printed: Any) -> float | None:
        """A published number in this metric's unit: ``0.163``, ``"0.163%"`` and ``"5.19GB"`` are all understood.

        Papers' units are ours: percent, and GB meaning GiB. Null if nothing was printed.
        """
        if printed is None or isinstance(printed, int | float):
            return None if printed is None else float(printed)
        text = str(printed).strip()
        for unit in ("%", "GiB", "GB"):
            text = text.removesuffix(unit).rstrip()
        try:
            return float(text)
        except ValueError:
            raise SpecError(f"published {self.name} {printed!r} is not a number") from None

    @property
    def titled(self) -> str:
        """Header with the unit."""
        return with_unit(self.header, self.unit)


def with_unit(header: str, unit: str) -> str:
    """``Memory (GiB)``; a header that already names the unit stays as it is."""
    return header if not unit or f"({unit})" in header else f"{header} ({unit})"


_METRICS: dict[str, Metric] = {}


def names() -> tuple[str, ...]:
    """Names of all metrics: those of this file in its order, then those of the tasks."""
    return (*_METRICS, *task_scores())


def get(name: str) -> Metric:
    """The metric. Raises SpecError, with the nearest known name, if there is none."""
    if name in _METRICS:
        return _METRICS[name]
    if name in task_scores():
        return _task_metric(name)
    raise SpecError(f"unknown metric {name!r}{did_you_mean(name, names())}")


def metric(
    *,
    header: str,
    unit: str = "",
    digits: int,
    direction: Direction,
    contest: bool = True,
    exact: bool = False,
    predicted: Measure | None = None,
) -> Callable[[Measure], Measure]:
    """Register the function below as a metric of its name."""

    def register(function: Measure) -> Measure:
        key = function.__name__
        _METRICS[key] = Metric(
            name=key,
            header=header,
            unit=unit,
            digits=digits,
            direction=direction,
            contest=contest,
            exact=exact or not contest,
            value=function,
            predicted=predicted,
        )
        return function

    return register


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


# --- parameters: exact, so that the estimate's stand for those of a cell that did not run -----------------------


def _params(record: CellRecord) -> Params | None:
    return record.params or (record.estimate.params if record.estimate else None)


@metric(header="#Params", unit="%", digits=3, direction="lower", contest=False)
def params(record: CellRecord) -> float | None:
    """Share of trainable parameters in the adapted model."""
    return found.pct if (found := _params(record)) else None


@metric(header="Trainable", unit="M", digits=3, direction="lower", contest=False)
def params_trainable(record: CellRecord) -> float | None:
    return found.trainable / 1e6 if (found := _params(record)) else None


@metric(header="Stored", unit="M", digits=3, direction="lower", contest=False)
def params_stored(record: CellRecord) -> float | None:
    """Parameters to keep per task."""
    return found.stored / 1e6 if (found := _params(record)) else None


@metric(header="Adapter size", unit="MB", digits=2, direction="lower", contest=False)
def adapter_size(record: CellRecord) -> float | None:
    """Size of the stored file, 1 MB = 1e6 bytes."""
    size = record.adapter_bytes
    return _scaled(record.estimate.adapter_bytes if size is None and record.estimate else size, 1e6)


# --- memory ----------------------------------------------------------------------------------------------------


def _predicted(record: CellRecord) -> PredictedMemory | None:
    return record.estimate.memory if record.estimate else None


def _predicted_train(record: CellRecord) -> PredictedPhase | None:
    return predicted.train if (predicted := _predicted(record)) else None


def _train_allocated(record: CellRecord) -> float | None:
    return phase.allocated_peak_bytes / GIB if (phase := _predicted_train(record)) else None


def _train_reserved(record: CellRecord) -> float | None:
    return phase.reserved_peak_bytes / GIB if (phase := _predicted_train(record)) else None


def _process_peak(record: CellRecord) -> float | None:
    return predicted.process_peak_bytes / GIB if (predicted := _predicted(record)) else None


def _eval_allocated(record: CellRecord) -> float | None:
    return predicted.eval.allocated_peak_bytes / GIB if (predicted := _predicted(record)) else None


@metric(header="Memory", unit="GiB", digits=2, direction="lower", exact=True, predicted=_train_allocated)
def memory(record: CellRecord) -> float | None:
    """Peak of the memory that tensors took on the GPU in training."""
    return _scaled(record.memory.train.allocated_peak_bytes, GIB)


@metric(header="Reserved memory", unit="GiB", digits=2, direction="lower", exact=True, predicted=_train_reserved)
def memory_reserved(record: CellRecord) -> float | None:
    """Peak of what PyTorch's allocator held on the GPU in training."""
    return _scaled(record.memory.train.reserved_peak_bytes, GIB)


@metric(header="Process memory", unit="GiB", digits=2, direction="lower", predicted=_process_peak)
def memory_nvml(record: CellRecord) -> float | None:
    """Peak of the worker's GPU memory as NVML and nvidia-smi report it, CUDA context included."""
    return _scaled(record.memory.nvml_process_peak_bytes, GIB)


@metric(header="Evaluation memory", unit="GiB", digits=2, direction="lower", exact=True, predicted=_eval_allocated)
def memory_eval(record: CellRecord) -> float | None:
    """Peak of the memory that tensors took on the GPU in evaluation."""
    return _scaled(record.memory.eval.allocated_peak_bytes, GIB)


@metric(header="Predicted memory", unit="GiB", digits=2, direction="lower", contest=False)
def memory_predicted(record: CellRecord) -> float | None:
    """What the estimate says of ``memory``, also where that was measured."""
    return _train_allocated(record)


@metric(header="Memory error", unit="%", digits=1, direction="lower", contest=False)
def memory_error(record: CellRecord) -> float | None:
    """By how much the prediction of ``memory`` was too high (negative: too low)."""
    return _error(record, _train_allocated, memory)


@metric(header="Reserved memory error", unit="%", digits=1, direction="lower", contest=False)
def memory_reserved_error(record: CellRecord) -> float | None:
    """By how much the prediction of ``memory_reserved`` was too high (negative: too low)."""
    return _error(record, _train_reserved, memory_reserved)


def _error(record: CellRecord, predicted: Measure, measured: Measure) -> float | None:
    """Percent of what was measured in a cell that ended well: where it ended early, its peak was still to come."""
    ours, theirs = predicted(record), measured(record)
    return 100 * (ours / theirs - 1) if ours is not None and theirs and record.status is Status.OK else None


@metric(header="Host memory", unit="GiB", digits=2, direction="lower")
def memory_host(record: CellRecord) -> float | None:
    """Peak resident set of the worker."""
    return _scaled(record.memory.host_rss_peak_bytes, GIB)


# --- operations ------------------------------------------------------------------------------------------------


@metric(header="FLOPs per step", unit="TFLOPs", digits=2, direction="lower", contest=False)
def flops(record: CellRecord) -> float | None:
    """Operations of one optimizer step, forward and backward, counted by the estimate."""
    counted = record.estimate.flops if record.estimate else None
    return _scaled(counted.train_step, 1e12) if counted else None


# --- time and energy -------------------------------------------------------------------------------------------


@metric(header="Training time", unit="s", digits=1, direction="lower")
def train_time(record: CellRecord) -> float | None:
    """Without set-up, warm-up steps and evaluation."""
    return record.time.train_s


@metric(header="Evaluation time", unit="s", digits=1, direction="lower")
def eval_time(record: CellRecord) -> float | None:
    return record.time.eval_s


@metric(header="Step", unit="ms", digits=1, direction="lower")
def step_time(record: CellRecord) -> float | None:
    """Median training step."""
    return _scaled(record.time.step_median_s, 1e-3)


@metric(header="Step p95", unit="ms", digits=1, direction="lower")
def step_time_p95(record: CellRecord) -> float | None:
    """95th percentile of the training steps."""
    return _scaled(record.time.step_p95_s, 1e-3)


@metric(header="Samples/s", digits=1, direction="higher")
def samples_per_s(record: CellRecord) -> float | None:
    return record.time.samples_per_s


@metric(header="Energy", unit="kJ", digits=2, direction="lower")
def energy(record: CellRecord) -> float | None:
    """GPU energy over training."""
    return _scaled(record.energy_j, 1e3)


# --- scores ----------------------------------------------------------------------------------------------------


def main(task: str | None) -> str:
    """Name of the metric by which a task ranks methods; null: the default task."""
    name: str = _task(task).MAIN
    return name


def baselines(task: str | None) -> dict[str, str]:
    """Baseline -> what tables call it, in the order printed; the first is the prior."""
    named: dict[str, str] = _task(task).BASELINES
    return named


def of_task(task: str | None) -> tuple[str, ...]:
    """Names of a task's own metrics."""
    return tuple(_task(task).METRICS)


def tasks_with(name: str) -> list[str]:
    """The tasks that have this metric of their own; none for a metric that every record has."""
    return [task for task in registry.names("tasks") if name in of_task(task)]


@cache
def task_scores() -> dict[str, ScoreFacts]:
    """The metrics of all tasks. Raises SpecError if two tasks mean different things by a name."""
    found: dict[str, ScoreFacts] = {}
    for task in registry.names("tasks"):
        for name, facts in _task(task).METRICS.items():
            if name in _METRICS or found.setdefault(name, facts) != facts:
                raise SpecError(f"task {task!r}: the metric {name!r} exists already and is another one; rename it")
    return found


def printed(score: Score | None, name: str) -> float | None:
    """A score of a task in the unit of its metric; null where there was nothing to score."""
    facts = task_scores().get(name)
    return None if score is None or score.value is None or facts is None else facts.factor * score.value


def prior(record: CellRecord, name: str | None = None) -> float | None:
    """What the first of the task's baselines scores by a metric of the task (null: its main one)."""
    wanted = name or main(record.task)
    found = record.baseline_scores().get(next(iter(baselines(record.task))), {})
    return printed(found.get(wanted), wanted)


def score_behind(record: CellRecord, name: str) -> str | None:
    """The metric of the record's task that decides this one: itself, or the main one; null for what is no score."""
    if name in (score.__name__, over_prior.__name__):
        return main(record.task)
    return name if name in task_scores() else None


def _task(name: str | None) -> ModuleType:
    return registry.load("tasks", name or tasks.DEFAULT)


@cache
def _task_metric(name: str) -> Metric:
    facts = task_scores()[name]
    return Metric(
        name=name,
        header=facts.header,
        unit=facts.unit,
        digits=facts.digits,
        direction="higher",
        contest=True,
        exact=False,
        value=lambda record: printed(record.score(name), name),
        score=lambda record: record.score(name),
    )


@metric(header="Score", digits=2, unit="%", direction="higher")
def score(record: CellRecord) -> float | None:
    """The metric by which the cell's task ranks methods, whatever it is."""
    return get(main(record.task)).value(record)


@metric(header="Over prior", unit="points", digits=2, direction="higher")
def over_prior(record: CellRecord) -> float | None:
    """The score above what knowing the training answers alone has: the majority class, or for questions the most common
    answer to each."""
    own, base = score(record), prior(record)
    return None if own is None or base is None else own - base


@metric(header="Final loss", digits=4, direction="lower")
def loss(record: CellRecord) -> float | None:
    """Last point of the training curve."""
    return record.loss_curve[-1].loss if record.loss_curve else None

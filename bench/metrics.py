"""Every metric: what a table column or an axis of the Pareto plot shows of a record, in the unit that papers print.

A value is null if it was not measured; zero is a value like any other. Adding a metric is adding a line to ``_TABLE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from bench import registry, tasks
from bench.errors import SpecError
from bench.plugins.contracts import ScoreFacts, TaskPlugin
from bench.records.record import CellRecord, Status
from bench.records.scores import Score
from bench.registry import did_you_mean

Direction = Literal["lower", "higher"]
"""Which values are better."""
Measure = Callable[[CellRecord], float | None]

# What nvidia-smi and torch.cuda users, and the papers' "GB", divide bytes by.
_GIB = 2**30


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
    rankable: bool
    """Whether the best value of a column is worth marking; not for what the freeze pattern alone decides."""
    deterministic: bool
    """Whether the same run again gives the same value to the digits printed, so that any difference counts."""
    value: Measure
    score: Callable[[CellRecord], Score | None] | None = None
    """For a metric of a task: the raw score, with its numerator and denominator."""
    predicted: Measure | None = None
    """What the cell's estimate says of it, in the same unit."""

    def published(self, printed: Any) -> float | None:
        """A published number in this metric's unit: ``0.163``, ``"0.163%"`` and ``"5.19GB"`` are all understood.

        Papers' units are ours: percent, and GB meaning GiB. Null if nothing was printed. Raises SpecError for what is
        no number.
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


def names() -> tuple[str, ...]:
    """Names of all metrics: those of every record first, then those of the tasks."""
    return (*_METRICS, *task_scores())


def get(name: str) -> Metric:
    """The metric. Raises SpecError, with the nearest known name, if there is none."""
    if name in _METRICS:
        return _METRICS[name]
    if name in task_scores():
        return _task_metric(name)
    raise SpecError(f"unknown metric {name!r}{did_you_mean(name, names())}")


# --- metrics of every record -----------------------------------------------------------------------------------


def _path(path: str, unit: float = 1) -> Measure:
    """The number at a dotted path of a record, divided by ``unit``; null where anything on the path is null."""

    def value(record: CellRecord) -> float | None:
        found: Any = record
        for step in path.split("."):
            found = getattr(found, step)
            if found is None:
                return None
        return float(found) if unit == 1 else float(found / unit)

    return value


def _first(*measures: Measure) -> Measure:
    """The first that is not null."""
    return lambda record: next((value for measure in measures if (value := measure(record)) is not None), None)


def _error(predicted: Measure, measured: Measure) -> Measure:
    """By how many percent a prediction was too high (negative: too low)."""

    def value(record: CellRecord) -> float | None:
        ours, theirs = predicted(record), measured(record)
        # Where a cell ended early, its peak was still to come.
        return 100 * (ours / theirs - 1) if ours is not None and theirs and record.status is Status.OK else None

    return value


def _params(field: str, unit: float) -> Measure:
    """An estimate's count stands for that of a cell that did not run: both are exact."""
    return _first(_path(f"params.{field}", unit), _path(f"estimate.params.{field}", unit))


def _score(record: CellRecord) -> float | None:
    return get(main(record.task)).value(record)


def _over_baseline(record: CellRecord) -> float | None:
    own, base = _score(record), baseline(record)
    return None if own is None or base is None else own - base


def _last_loss(record: CellRecord) -> float | None:
    return record.loss_curve[-1].loss if record.loss_curve else None


_ALLOCATED = _path("memory.train.allocated_peak_bytes", _GIB)
_RESERVED = _path("memory.train.reserved_peak_bytes", _GIB)
_ESTIMATED = _path("estimate.memory.train.allocated_peak_bytes", _GIB)
_ESTIMATED_RESERVED = _path("estimate.memory.train.reserved_peak_bytes", _GIB)

SCORE = "score"
"""The metric by which the cell's task ranks methods, whatever it is."""
OVER_BASELINE = "over_prior"
"""The score above the task's first baseline: the majority class, or the most common answer to each question."""

# name, header, unit, digits, value, and what differs from: lower is better, rankable, not deterministic, not predicted
_TABLE: tuple[tuple[str, str, str, int, Measure, dict[str, Any]], ...] = (
    # Parameters: exact, and decided by the freeze pattern alone.
    ("params", "#Params", "%", 3, _params("pct", 1), {"rankable": False}),
    ("params_trainable", "Trainable", "M", 3, _params("trainable", 1e6), {"rankable": False}),
    ("params_stored", "Stored", "M", 3, _params("stored", 1e6), {"rankable": False}),
    (
        "adapter_size",
        "Adapter size",
        "MB",
        2,
        _first(_path("adapter_bytes", 1e6), _path("estimate.adapter_bytes", 1e6)),
        {"rankable": False},
    ),
    # Memory: allocated is what tensors take, reserved what PyTorch's allocator holds, NVML's the whole process.
    ("memory", "Memory", "GiB", 2, _ALLOCATED, {"deterministic": True, "predicted": _ESTIMATED}),
    (
        "memory_reserved",
        "Reserved memory",
        "GiB",
        2,
        _RESERVED,
        {"deterministic": True, "predicted": _ESTIMATED_RESERVED},
    ),
    (
        "memory_nvml",
        "Process memory",
        "GiB",
        2,
        _path("memory.nvml_process_peak_bytes", _GIB),
        {"predicted": _path("estimate.memory.process_peak_bytes", _GIB)},
    ),
    (
        "memory_eval",
        "Evaluation memory",
        "GiB",
        2,
        _path("memory.eval.allocated_peak_bytes", _GIB),
        {"deterministic": True, "predicted": _path("estimate.memory.eval.allocated_peak_bytes", _GIB)},
    ),
    ("memory_predicted", "Predicted memory", "GiB", 2, _ESTIMATED, {"rankable": False}),
    ("memory_error", "Memory error", "%", 1, _error(_ESTIMATED, _ALLOCATED), {"rankable": False}),
    (
        "memory_reserved_error",
        "Reserved memory error",
        "%",
        1,
        _error(_ESTIMATED_RESERVED, _RESERVED),
        {"rankable": False},
    ),
    ("memory_host", "Host memory", "GiB", 2, _path("memory.host_rss_peak_bytes", _GIB), {}),
    # Operations of one optimizer step, forward and backward, as the estimate counts them.
    ("flops", "FLOPs per step", "TFLOPs", 2, _path("estimate.flops.train_step", 1e12), {"rankable": False}),
    # Time without set-up and warm-up steps; energy of the GPU over training.
    ("train_time", "Training time", "s", 1, _path("time.train_s"), {}),
    ("eval_time", "Evaluation time", "s", 1, _path("time.eval_s"), {}),
    ("step_time", "Step", "ms", 1, _path("time.step_median_s", 1e-3), {}),
    ("step_time_p95", "Step p95", "ms", 1, _path("time.step_p95_s", 1e-3), {}),
    ("samples_per_s", "Samples/s", "", 1, _path("time.samples_per_s"), {"direction": "higher"}),
    ("energy", "Energy", "kJ", 2, _path("energy_j", 1e3), {}),
    (SCORE, "Score", "%", 2, _score, {"direction": "higher"}),
    (OVER_BASELINE, "Over prior", "points", 2, _over_baseline, {"direction": "higher"}),
    ("loss", "Final loss", "", 4, _last_loss, {}),
)


def _metric(name: str, header: str, unit: str, digits: int, value: Measure, others: dict[str, Any]) -> Metric:
    facts: dict[str, Any] = {"direction": "lower", "rankable": True, **others}
    facts.setdefault("deterministic", not facts["rankable"])
    return Metric(name=name, header=header, unit=unit, digits=digits, value=value, **facts)


_METRICS = {row[0]: _metric(*row) for row in _TABLE}


# --- metrics of tasks ------------------------------------------------------------------------------------------


def _task(name: str | None) -> TaskPlugin:
    return registry.load("tasks", name or tasks.DEFAULT)


def main(task: str | None) -> str:
    """Name of the metric by which a task ranks methods; null: the default task."""
    return _task(task).MAIN


def baselines(task: str | None) -> dict[str, str]:
    """Baseline -> what tables call it, in the order printed."""
    return _task(task).BASELINES


def of_task(task: str | None) -> tuple[str, ...]:
    """Names of a task's own metrics."""
    return tuple(_task(task).METRICS)


def tasks_with(name: str) -> list[str]:
    """The tasks that have this metric of their own; none for a metric that every record has."""
    return [task for task in registry.names("tasks") if name in of_task(task)]


@cache
def task_scores() -> dict[str, ScoreFacts]:
    """The metrics of all tasks. Raises SpecError if two tasks mean different things by a name."""
    scores: dict[str, ScoreFacts] = {}
    for task in registry.names("tasks"):
        for name, facts in _task(task).METRICS.items():
            if name in _METRICS or scores.setdefault(name, facts) != facts:
                raise SpecError(f"task {task!r}: the metric {name!r} exists already and is another one; rename it")
    return scores


@cache
def _task_metric(name: str) -> Metric:
    facts = task_scores()[name]
    return Metric(
        name=name,
        header=facts.header,
        unit=facts.unit,
        digits=facts.digits,
        direction="higher",
        rankable=True,
        deterministic=False,
        value=lambda record: in_unit(record.score(name), name),
        score=lambda record: record.score(name),
    )


def in_unit(score: Score | None, name: str) -> float | None:
    """A score of a task in the unit of its metric; null where there was nothing to score."""
    facts = task_scores().get(name)
    return None if score is None or score.value is None or facts is None else facts.factor * score.value


def baseline(record: CellRecord, name: str | None = None) -> float | None:
    """What the first of the task's baselines scores by a metric of the task (null: its main one)."""
    wanted = name or main(record.task)
    scores = record.baseline_scores().get(next(iter(baselines(record.task))), {})
    return in_unit(scores.get(wanted), wanted)


def underlying_score(record: CellRecord, name: str) -> str | None:
    """The score of the record's task that decides a metric: itself, or the main one; null for what is no score."""
    if name in (SCORE, OVER_BASELINE):
        return main(record.task)
    return name if name in task_scores() else None

"""Which cells are worth their cost: the Pareto front over the spec's costs and scores, as the data of its plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bench import format, metrics
from bench.analysis.pareto import Standing, standings
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import EvalSet, Row, baselines_of, eval_sets
from bench.analysis.statistics import difference, interval
from bench.metrics import Metric
from bench.report import captions
from bench.report.pareto_plot import Panel, Plot, Point

if TYPE_CHECKING:
    from bench.spec.sections import Spec

FALLBACK_COSTS = ("memory", "memory_reserved", "memory_nvml", "params", "step_time", "train_time")
"""Taken in this order where the chosen cost was not measured, e.g. GPU memory on a CPU."""
LABEL_WIDTH = 36

ValueOf = Callable[[Row, Metric], float | None]
Candidates = dict[Row, tuple[list[float], Standing]]
"""Rows of a series, each with a value per cost, then one per score, and its standing among them."""


def build_plot(spec: Spec, scale: str, rows: Sequence[Row], examples: ExampleScores | None = None) -> Plot:
    """Measured cells with intervals, the paper's numbers for them, the task's baseline and what failed.

    Cells whose cost was predicted but not measured are a series of their own, with a front of its own. Nothing is on a
    front that is not above the baseline in at least one of the scores. With ``examples``, noise is judged on the
    examples that cells share.
    """
    wanted = [metrics.get(name) for name in spec.pareto.costs or [spec.pareto.cost]]
    costs = list(dict.fromkeys(_known_cost(cost, rows) for cost in wanted))
    origin = dict(zip(costs, wanted, strict=False)) if len(costs) == len(wanted) else {cost: cost for cost in costs}
    panels = []
    for eval_set in eval_sets(rows):
        scores = _scores(spec, eval_set.task)
        front = ParetoFront(
            eval_set=eval_set,
            costs=costs,
            scores=scores,
            examples=examples or ExampleScores(None),
            baselines=_baselines(eval_set, scores),
        )
        series = {
            "measured": front.candidates(lambda row, metric: row.mean(metric) if row.ok else None),
            "predicted": front.candidates(front.predicted),
            "published": front.candidates(_published, noisy=False, floored=not captions.scale_tag(scale)),
        }
        panels += [front.panel(series, cost, score, origin[cost]) for score, cost in product(scores, costs)]
    return Plot(
        title=format.clipped(format.one_line(spec.title or spec.name), 90),
        subtitle=format.clipped(captions.facts(scale, rows), 210),
        tag=captions.tag(scale, rows),
        panels=panels,
        failures=[
            format.clipped(f"{format.clipped(row.label, LABEL_WIDTH)}: {row.status}", 72)
            for row in rows
            if not row.ok and any(row.records)
        ],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ParetoFront:
    """Comparable cells against each other in costs and scores."""

    eval_set: EvalSet
    costs: list[Metric]
    scores: list[Metric]
    examples: ExampleScores
    baselines: Mapping[Metric, float | None]
    """Value of the task's first baseline by each score."""

    @property
    def objectives(self) -> list[Metric]:
        return [*self.costs, *self.scores]

    def predicted(self, row: Row, metric: Metric) -> float | None:
        """Value of a finished cell some cost of which was predicted and not measured."""
        if not row.ok or all(row.mean(cost) is not None for cost in self.costs):
            return None
        measured = row.mean(metric)
        return row.predicted(metric) if measured is None and metric in self.costs else measured

    def candidates(self, value: ValueOf, *, noisy: bool = True, floored: bool = True) -> Candidates:
        """The rows that have all values; ``noisy``: with noise, ``floored``: kept off the front below the baseline."""
        known: dict[Row, list[float]] = {}
        for row in self.eval_set.rows:
            values = [v for metric in self.objectives if (v := value(row, metric)) is not None]
            if len(values) == len(self.objectives):
                known[row] = values
        rows = list(known)
        signs = [1 if metric.direction == "lower" else -1 for metric in self.objectives]
        places = [[sign * v for sign, v in zip(signs, values, strict=True)] for values in known.values()]

        def distinguishable(i: int, j: int, k: int) -> bool:
            metric = self.objectives[k]
            if not noisy or metric.deterministic:
                return True
            found = difference(rows[i], rows[j], metric, self.examples)
            return found is None or found.distinct

        below = [floored and self._below_baseline(values) for values in known.values()]
        found = standings(places, below, distinguishable)
        return {row: (known[row], standing) for row, standing in zip(rows, found, strict=True)}

    def _below_baseline(self, values: Sequence[float]) -> bool:
        """Whether it is above the baseline in none of the scores, at least one of which has a baseline."""
        pairs = zip(values[len(self.costs) :], map(self.baselines.get, self.scores), strict=True)
        known = [(value, baseline) for value, baseline in pairs if baseline is not None]
        return len(known) == len(self.scores) and all(value <= baseline for value, baseline in known)

    def panel(self, series: Mapping[str, Candidates], cost: Metric, score: Metric, wanted: Metric) -> Panel:
        """The plot of one score against one cost."""
        points = {
            name: [self._point(row, *of, cost, score, name) for row, of in c.items()] for name, c in series.items()
        }
        xs = [point.x for found in points.values() for point in found]
        return Panel(
            x_label=cost.titled + _about_cost(wanted, cost, points["measured"], points["predicted"]),
            y_label=", ".join(filter(None, [_score_label(score), format.clipped(self.eval_set.name, LABEL_WIDTH)])),
            x_log=bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 100,
            lower_cost_is_better=cost.direction == "lower",
            front_line=len(self.objectives) == 2,
            **points,
            baseline=self.baselines[score],
            baseline_label=next(iter(metrics.baselines(self.eval_set.task).values())),
        )

    def _point(
        self, row: Row, values: Sequence[float], standing: Standing, cost: Metric, score: Metric, series: str
    ) -> Point:
        def bounds(metric: Metric) -> tuple[float | None, float | None]:
            if series == "published" or metric.deterministic:
                return None, None
            found = interval(row, metric, self.examples)
            return (found.low, found.high) if found else (None, None)

        (x_low, x_high), (y_low, y_high) = bounds(cost), bounds(score)
        return Point(
            label=format.clipped(self.eval_set.short(row.label), LABEL_WIDTH),
            x=values[self.objectives.index(cost)],
            y=values[self.objectives.index(score)],
            on_front=standing == "front",
            within_noise=standing == "noise",
            x_low=x_low,
            x_high=x_high,
            y_low=y_low,
            y_high=y_high,
        )


def _scores(spec: Spec, task: str) -> list[Metric]:
    """The spec's scores that the task has; the metric by which it ranks methods if it has none of them."""
    others = set(metrics.task_scores()) - set(metrics.of_task(task))
    main = metrics.main(task)
    named = [name for name in spec.pareto.scores or [spec.pareto.score or main] if name not in others]
    return [metrics.get(name) for name in dict.fromkeys(named or [main])]


def _baselines(eval_set: EvalSet, scores: Sequence[Metric]) -> dict[Metric, float | None]:
    """Value of the first of the task's baselines by each score; null without a finished cell."""
    recorded = (baselines_of(eval_set.rows) or [{}])[0].get(next(iter(metrics.baselines(eval_set.task))), {})
    values: dict[Metric, float | None] = {}
    for score in scores:
        name = metrics.main(eval_set.task) if score.name == "score" else score.name
        values[score] = 0.0 if name == "over_prior" else metrics.in_unit(recorded.get(name), name)
    return values


def _score_label(score: Metric) -> str:
    facts = metrics.task_scores().get(score.name)
    return metrics.with_unit(facts.title or facts.header if facts else score.header, score.unit)


def _known_cost(wanted: Metric, rows: Sequence[Row]) -> Metric:
    """The wanted cost if it was measured, or else predicted, in any finished cell, or the first other one that was
    measured."""
    finished = [row for row in rows if row.ok]
    if any(row.mean(wanted) is not None or row.predicted(wanted) is not None for row in finished):
        return wanted
    others = map(metrics.get, FALLBACK_COSTS)
    return next((cost for cost in others if any(row.mean(cost) is not None for row in finished)), wanted)


def _about_cost(wanted: Metric, cost: Metric, measured: Sequence[Point], predicted: Sequence[Point]) -> str:
    """What must stand beside the cost's name on its axis."""
    if cost is not wanted:
        return f" ({wanted.header.lower()} was not measured)"
    if not predicted or cost.predicted is None:
        return ""
    return ", measured (filled) or predicted (hollow)" if measured else ", predicted for a CUDA GPU"


def _published(row: Row, metric: Metric) -> float | None:
    return row.published.values.get(metric.name) if row.published else None

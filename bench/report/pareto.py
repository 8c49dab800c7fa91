"""Which cells are worth their cost: the Pareto front over the spec's costs and scores, and its plot as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from bench import format, metrics
from bench.analysis.pareto import Standing, standings
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import EvalSet, Row, baselines_of, eval_sets
from bench.analysis.statistics import Interval, difference, interval
from bench.metrics import Metric
from bench.report import captions
from bench.report.pareto_plot import Panel, Plot, Point

if TYPE_CHECKING:
    from bench.spec.sections import Spec

OTHER_COSTS = ("memory", "memory_reserved", "memory_nvml", "params", "step_time", "train_time")
"""Taken in this order where the chosen cost was not measured, e.g. GPU memory on a CPU."""
LABEL_WIDTH = 36

Value = Callable[[Row, Metric], float | None]


def build_plot(spec: Spec, scale: str, groups: Sequence[Row], examples: ExampleScores | None = None) -> Plot:
    """Measured cells with intervals, the paper's numbers for them, the task's prior and what failed.

    Finished cells whose cost was predicted but not measured are a series of their own, with a front of its own. Nothing
    is on a front that is not above the prior in at least one of the scores. With ``examples``, noise is judged on the
    examples that cells share.
    """
    wanted = [metrics.get(name) for name in spec.pareto.costs or [spec.pareto.cost]]
    costs = list(dict.fromkeys(_known_cost(cost, groups) for cost in wanted))
    origin = dict(zip(costs, wanted, strict=False)) if len(costs) == len(wanted) else {cost: cost for cost in costs}
    tag = captions.scale_tag(scale)
    panels = []
    for one in eval_sets(groups):
        scores = _scores(spec, one.task)
        race = _Race(
            field=one, costs=costs, scores=scores, examples=examples or ExampleScores(None), floors=_floors(one, scores)
        )
        series = {
            "measured": race.series(lambda group, metric: group.mean(metric) if group.ok else None),
            "predicted": race.series(race.predicted),
            "published": race.series(_published, noisy=False, floored=not tag),
        }
        panels += [race.panel(series, cost, score, origin[cost]) for score, cost in product(scores, costs)]
    return Plot(
        title=format.clipped(format.one_line(spec.title or spec.name), 90),
        subtitle=format.clipped(captions.facts(scale, groups), 210),
        tag=captions.tag(scale, groups),
        panels=panels,
        failures=[
            format.clipped(f"{format.clipped(group.label, LABEL_WIDTH)}: {group.status}", 72)
            for group in groups
            if not group.ok and any(group.records)
        ],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entrant:
    """A group of a series: one value per cost, then one per score."""

    group: Row
    values: list[float]
    standing: Standing = "beaten"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Race:
    """The cells of a field against each other in costs and scores."""

    field: EvalSet
    costs: list[Metric]
    scores: list[Metric]
    examples: ExampleScores
    floors: dict[Metric, float | None]
    """Of each score, what the first of the task's baselines has."""

    @property
    def objectives(self) -> list[Metric]:
        return [*self.costs, *self.scores]

    def predicted(self, group: Row, metric: Metric) -> float | None:
        """Of finished cells some cost of which was predicted and not measured."""
        if not group.ok or all(group.mean(cost) is not None for cost in self.costs):
            return None
        measured = group.mean(metric)
        return group.predicted(metric) if measured is None and metric in self.costs else measured

    def series(self, value: Value, *, noisy: bool = True, floored: bool = True) -> list[_Entrant]:
        """The groups that have all values, each with its standing among them."""
        found = []
        for group in self.field.rows:
            values = [value(group, metric) for metric in self.objectives]
            known = [one for one in values if one is not None]
            if len(known) == len(values):
                found.append(_Entrant(group=group, values=known))
        signs = [1 if metric.direction == "lower" else -1 for metric in self.objectives]
        places = [[sign * one for sign, one in zip(signs, e.values, strict=True)] for e in found]

        def told(i: int, j: int, k: int) -> bool:
            metric = self.objectives[k]
            if not noisy or metric.deterministic:
                return True
            apart = difference(found[i].group, found[j].group, metric, self.examples)
            return apart is None or apart.distinct

        below = [floored and self._below_floor(entrant) for entrant in found]
        found_standings = standings(places, below, told)
        return [
            _Entrant(group=e.group, values=e.values, standing=standing)
            for e, standing in zip(found, found_standings, strict=True)
        ]

    def _below_floor(self, entrant: _Entrant) -> bool:
        """Not above the prior in any score that has one."""
        values = entrant.values[len(self.costs) :]
        floors = [(one, self.floors[score]) for one, score in zip(values, self.scores, strict=True)]
        return any(floor is not None for _, floor in floors) and all(
            floor is not None and one <= floor for one, floor in floors
        )

    def panel(self, series: dict[str, list[_Entrant]], cost: Metric, score: Metric, wanted: Metric) -> Panel:
        """The plot of one score against one cost."""
        x, y = self.objectives.index(cost), self.objectives.index(score)
        points = {name: [self._point(e, x, y, name) for e in entrants] for name, entrants in series.items()}
        xs = [point.x for found in points.values() for point in found]
        return Panel(
            x_label=cost.titled + _about_cost(wanted, cost, points["measured"], points["predicted"]),
            y_label=", ".join(filter(None, [_score_label(score), format.clipped(self.field.name, LABEL_WIDTH)])),
            x_log=bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 100,
            lower_cost_is_better=cost.direction == "lower",
            front_line=len(self.objectives) == 2,
            measured=points["measured"],
            predicted=points["predicted"],
            published=points["published"],
            baseline=self.floors[score],
            baseline_label=next(iter(metrics.baselines(self.field.task).values())),
        )

    def _point(self, entrant: _Entrant, x: int, y: int, name: str) -> Point:
        of_x, of_y = (self._bounds(entrant.group, self.objectives[k], name) for k in (x, y))
        return Point(
            label=format.clipped(self.field.short(entrant.group.label), LABEL_WIDTH),
            x=entrant.values[x],
            y=entrant.values[y],
            on_front=entrant.standing == "front",
            within_noise=entrant.standing == "noise",
            x_low=of_x.low if of_x else None,
            x_high=of_x.high if of_x else None,
            y_low=of_y.low if of_y else None,
            y_high=of_y.high if of_y else None,
        )

    def _bounds(self, group: Row, metric: Metric, name: str) -> Interval | None:
        return interval(group, metric, self.examples) if name != "published" and not metric.deterministic else None


def _scores(spec: Spec, task: str) -> list[Metric]:
    """Those of the spec that the task has; the metric by which it ranks methods if the spec names none of them."""
    others = set(metrics.task_scores()) - set(metrics.of_task(task))
    main = metrics.main(task)
    named = [name for name in spec.pareto.scores or [spec.pareto.score or main] if name not in others]
    return [metrics.get(name) for name in dict.fromkeys(named or [main])]


def _floors(field: EvalSet, scores: Sequence[Metric]) -> dict[Metric, float | None]:
    """What the first of the task's baselines scores by the same metrics; null without a finished cell."""
    prior = (baselines_of(field.rows) or [{}])[0].get(next(iter(metrics.baselines(field.task))), {})
    main = metrics.main(field.task)
    names = {score: main if score.name == metrics.SCORE else score.name for score in scores}
    floors = {score: metrics.in_unit(prior.get(name), name) for score, name in names.items()}
    return {score: 0.0 if score.name == metrics.OVER_BASELINE else floor for score, floor in floors.items()}


def _score_label(score: Metric) -> str:
    facts = metrics.task_scores().get(score.name)
    return metrics.with_unit(facts.title or facts.header if facts else score.header, score.unit)


def _known_cost(wanted: Metric, groups: Sequence[Row]) -> Metric:
    """The wanted cost if it was measured, or else predicted, in at least one finished cell, or the first other one
    that was measured."""
    finished = [group for group in groups if group.ok]
    if any(group.mean(wanted) is not None or group.predicted(wanted) is not None for group in finished):
        return wanted
    others = [metrics.get(name) for name in OTHER_COSTS]
    return next((cost for cost in others if any(group.mean(cost) is not None for group in finished)), wanted)


def _about_cost(wanted: Metric, cost: Metric, measured: Sequence[Point], predicted: Sequence[Point]) -> str:
    """What must stand beside the cost's name on its axis."""
    if cost is not wanted:
        return f" ({wanted.header.lower()} was not measured)"
    if not predicted or cost.predicted is None:
        return ""
    return ", measured (filled) or predicted (hollow)" if measured else ", predicted for a CUDA GPU"


def _published(group: Row, metric: Metric) -> float | None:
    return group.published.values.get(metric.name) if group.published else None

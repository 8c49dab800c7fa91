"""Which cells are worth their cost: the Pareto front, and the plot of it as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench import metrics
from bench.metrics import Metric
from bench.report import notes, text
from bench.report.draw import Plot, Point
from bench.report.groups import Group, baselines_of

if TYPE_CHECKING:
    from bench.spec.models import Spec

OTHER_COSTS = ("memory", "memory_reserved", "memory_nvml", "params", "step_time", "train_time")
"""Taken in this order where the chosen cost was not measured, e.g. GPU memory on a CPU."""
LABEL_WIDTH = 36


def build_plot(spec: Spec, scale: str, groups: Sequence[Group]) -> Plot:
    """Measured cells, the paper's numbers for them, the task's prior and what failed.

    Finished cells whose cost was predicted but not measured are a series of their own, with a front of its own.
    """
    wanted, score = metrics.get(spec.pareto.cost), metrics.get(spec.pareto.score or metrics.main(spec.task.name))
    cost = _known_cost(wanted, groups)
    measured = front(_measured(groups, cost, score), cost, score)
    predicted = front(_predicted(groups, cost, score), cost, score)
    published = front(_published(groups, cost, score), cost, score)
    xs = [point.x for point in measured + predicted + published]
    return Plot(
        title=text.clipped(text.plain(spec.title or spec.name), 90),
        subtitle=text.clipped(notes.facts(scale, groups), 210),
        tag=notes.scale_tag(scale),
        x_label=cost.titled + _about_cost(wanted, cost, measured, predicted),
        y_label=_score_label(score),
        x_log=bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 100,
        lower_cost_is_better=cost.direction == "lower",
        measured=measured,
        predicted=predicted,
        published=published,
        baseline=_baseline(spec, groups, score),
        baseline_label=next(iter(metrics.baselines(spec.task.name).values())),
        failures=[
            text.clipped(f"{text.clipped(group.label, LABEL_WIDTH)}: {group.status}", 72)
            for group in groups
            if not group.ok and any(group.records)
        ],
    )


def _score_label(score: Metric) -> str:
    facts = metrics.task_scores().get(score.name)
    return metrics.with_unit(facts.title or facts.header if facts else score.header, score.unit)


def front(points: list[Point], cost: Metric, score: Metric) -> list[Point]:
    """The same points, those marked that no other point beats: as cheap and as good, and better in one of them."""
    x, y = _ascending(cost), _ascending(score)

    def beats(a: Point, b: Point) -> bool:
        return x * a.x <= x * b.x and y * a.y <= y * b.y and (a.x, a.y) != (b.x, b.y)

    return [Point(label=p.label, x=p.x, y=p.y, on_front=not any(beats(other, p) for other in points)) for p in points]


def _ascending(metric: Metric) -> int:
    """Factor that makes less better."""
    return 1 if metric.direction == "lower" else -1


def _known_cost(wanted: Metric, groups: Sequence[Group]) -> Metric:
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
    if not predicted:
        return ""
    return ", measured (filled) or predicted (hollow)" if measured else ", predicted for a CUDA GPU"


def _measured(groups: Sequence[Group], cost: Metric, score: Metric) -> list[Point]:
    return _points(groups, lambda group, metric: group.mean(metric) if group.ok else None, cost, score)


def _predicted(groups: Sequence[Group], cost: Metric, score: Metric) -> list[Point]:
    """Finished cells whose cost was not measured."""
    left = [group for group in groups if group.ok and group.mean(cost) is None]
    return _points(
        left, lambda group, metric: group.predicted(metric) if metric is cost else group.mean(metric), cost, score
    )


def _published(groups: Sequence[Group], cost: Metric, score: Metric) -> list[Point]:
    return _points(
        groups, lambda group, metric: group.published.values.get(metric.name) if group.published else None, cost, score
    )


def _points(
    groups: Sequence[Group], value: Callable[[Group, Metric], float | None], cost: Metric, score: Metric
) -> list[Point]:
    return [
        Point(label=text.clipped(group.label, LABEL_WIDTH), x=x, y=y)
        for group in groups
        if (x := value(group, cost)) is not None and (y := value(group, score)) is not None
    ]


def _baseline(spec: Spec, groups: Sequence[Group], score: Metric) -> float | None:
    """What the first of the task's baselines scores by the same metric."""
    prior = next(iter(metrics.baselines(spec.task.name)))
    return metrics.printed((baselines_of(groups) or [{}])[0].get(prior, {}).get(score.name), score.name)

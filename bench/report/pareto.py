"""Data of the Pareto plot: panels, labels and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from bench import format, metrics
from bench.analysis.pareto import Candidate, ParetoFront, pareto_fronts
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row
from bench.analysis.statistics import Interval, interval
from bench.metrics import Metric
from bench.report import captions
from bench.report.pareto_plot import Panel, Plot, PlotPoint
from bench.spec.sections import Spec

LABEL_WIDTH = 36


def build_plot(spec: Spec, scale: str, rows: Sequence[Row], examples: ExampleScores | None = None) -> Plot:
    """Measured cells with intervals, the paper's numbers for them, the task's baseline and what failed.

    Completed cells whose cost was predicted but not measured are a separate series with its front. With ``examples``,
    significance is tested on the examples that cells share.
    """
    tag = captions.scale_tag(scale)
    panels = []
    for front in pareto_fronts(spec, rows, examples or ExampleScores(None)):
        series = {
            "measured": front.measured(),
            "predicted": front.predicted(),
            "published": front.published(above_baseline=not tag),
        }
        panels += [_panel(front, series, cost, score) for score, cost in product(front.scores, front.costs)]
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


def _panel(front: ParetoFront, series: Mapping[str, Sequence[Candidate]], cost: Metric, score: Metric) -> Panel:
    """The plot of one score against one cost."""
    points = {name: [_point(front, c, cost, score, name) for c in found] for name, found in series.items()}
    xs = [point.x for found in points.values() for point in found]
    facts = metrics.task_scores().get(score.name)
    title = metrics.with_unit(facts.title or facts.header if facts else score.header, score.unit)
    return Panel(
        x_label=cost.titled + _about_cost(front.costs[cost], cost, points["measured"], points["predicted"]),
        y_label=", ".join(filter(None, [title, format.clipped(front.eval_set.name, LABEL_WIDTH)])),
        x_log=bool(xs) and min(xs) > 0 and max(xs) / min(xs) > 100,
        lower_cost_is_better=cost.direction == "lower",
        front_line=len(front.objectives) == 2,
        measured=points["measured"],
        predicted=points["predicted"],
        published=points["published"],
        baseline=front.baselines[score],
        baseline_label=next(iter(metrics.baselines(front.eval_set.task).values())),
    )


def _point(front: ParetoFront, candidate: Candidate, cost: Metric, score: Metric, series: str) -> PlotPoint:
    def known(metric: Metric) -> Interval | None:
        exact = series == "published" or metric.deterministic
        return None if exact else interval(candidate.row, metric, front.examples)

    x, y = known(cost), known(score)
    return PlotPoint(
        label=format.clipped(front.eval_set.short(candidate.row.label), LABEL_WIDTH),
        x=candidate.values[front.objectives.index(cost)],
        y=candidate.values[front.objectives.index(score)],
        on_front=candidate.status == "front",
        within_noise=candidate.status == "noise",
        x_low=x.low if x else None,
        x_high=x.high if x else None,
        y_low=y.low if y else None,
        y_high=y.high if y else None,
    )


def _about_cost(wanted: Metric, cost: Metric, measured: Sequence[PlotPoint], predicted: Sequence[PlotPoint]) -> str:
    """Note after the cost's name on its axis."""
    if cost is not wanted:
        return f" ({wanted.header.lower()} was not measured)"
    if not predicted or cost.predicted is None:
        return ""
    return ", measured (filled) or predicted (hollow)" if measured else ", predicted for a CUDA GPU"

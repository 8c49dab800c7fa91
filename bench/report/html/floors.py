"""What an answer without a look at the input scores, on the examples that each group of cells was scored on."""

from __future__ import annotations

from bench import format, metrics
from bench.analysis import statistics
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row
from bench.metrics import Metric


def floors(group: Row, metric: Metric) -> dict[str, float]:
    """What tables call a baseline -> its score in the metric's unit; the prior first."""
    record = next((record for record in group.ok if record.baseline_scores()), None)
    behind = metrics.underlying_score(record, metric.name) if record else None
    if record is None or behind is None:
        return {}
    scores = record.baseline_scores()
    above = (metrics.baseline(record) or 0.0) if metric.name == metrics.OVER_BASELINE else 0.0
    values = {
        called: metrics.in_unit(scores.get(name, {}).get(behind), behind)
        for name, called in metrics.baselines(record.task).items()
    }
    return {format.one_line(called): value - above for called, value in values.items() if value is not None}


def above(group: Row, floor: float | None, metric: Metric, examples: ExampleScores) -> bool:
    """Whether the group's whole interval lies above; true without a floor."""
    if floor is None:
        return True
    found = statistics.interval(group, metric, examples)
    least = None if found is None else found.mean if found.low is None else found.low
    return least is not None and least > floor

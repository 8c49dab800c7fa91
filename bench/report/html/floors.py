"""What an answer without a look at the input scores, on the examples that each group of cells was scored on."""

from __future__ import annotations

from bench import metrics
from bench.metrics import Metric
from bench.report import text, uncertainty
from bench.report.groups import Group
from bench.report.outcomes import Outcomes


def floors(group: Group, metric: Metric) -> dict[str, float]:
    """What tables call a baseline -> its score in the metric's unit; the prior first."""
    scored = [(record.task, found) for record in group.ok if (found := record.baseline_scores())]
    if not scored:
        return {}
    task, scores = scored[0]
    values = {
        called: metrics.printed(scores.get(name, {}).get(metric.name), metric.name)
        for name, called in metrics.baselines(task).items()
    }
    return {text.plain(called): value for called, value in values.items() if value is not None}


def above(group: Group, floor: float | None, metric: Metric, outcomes: Outcomes) -> bool:
    """Whether the group's whole interval lies above; true without a floor."""
    if floor is None:
        return True
    spread = uncertainty.spread(group, metric, outcomes)
    least = None if spread is None else spread.mean if spread.low is None else spread.low
    return least is not None and least > floor

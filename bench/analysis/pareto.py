"""Pareto fronts: which cells no other dominates, in any number of costs and scores, beyond the noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import le
from typing import Literal

from bench import metrics
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import EvalSet, Row, baselines_of, eval_sets
from bench.analysis.statistics import difference
from bench.metrics import Metric
from bench.spec.sections import Spec

ParetoStatus = Literal["front", "noise", "dominated", "baseline"]
"""``front``: no other is as good in everything and better in something; ``noise``: dominated, but not significantly;
``dominated``: significantly; ``baseline``: not above the baseline in any score, so never on the front."""
OTHER_COSTS = ("memory", "memory_reserved", "memory_nvml", "params", "step_time", "train_time")
"""Taken in this order where the chosen cost was not measured, e.g. GPU memory on a CPU."""


def pareto_status(
    points: Sequence[Sequence[float]],
    at_baseline: Sequence[bool],
    distinguishable: Callable[[int, int, int], bool],
) -> list[ParetoStatus]:
    """The status of each point; a point has one number per objective, less is better.

    ``at_baseline``: not above the baseline; ``distinguishable``: whether two points (by index) differ significantly in
    an objective (by index).
    """
    found: list[ParetoStatus] = ["baseline"] * len(points)
    front: list[int] = []
    # Sorted, a point comes after all that dominate it; only the front need be asked, as it dominates the others.
    for i in sorted((i for i in range(len(points)) if not at_baseline[i]), key=lambda i: tuple(points[i])):
        dominating = [j for j in front if all(map(le, points[j], points[i])) and points[j] != points[i]]
        if not dominating:
            front.append(i)
            found[i] = "front"
        else:
            surely = any(all(distinguishable(i, j, k) for k in range(len(points[i]))) for j in dominating)
            found[i] = "dominated" if surely else "noise"
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A row with a value of every objective."""

    row: Row
    values: list[float]
    """One per cost, then one per score."""
    status: ParetoStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class ParetoFront:
    """The rows of an evaluation set against each other."""

    eval_set: EvalSet
    costs: Mapping[Metric, Metric]
    """Cost -> the one that the spec names, in whose place it stands."""
    scores: list[Metric]
    examples: ExampleScores
    baselines: Mapping[Metric, float | None]
    """Score -> value of the task's first baseline."""

    @property
    def objectives(self) -> list[Metric]:
        return [*self.costs, *self.scores]

    def measured(self) -> list[Candidate]:
        """Completed rows whose costs were all measured."""
        return self._candidates(lambda row, metric: row.mean(metric) if row.ok else None)

    def predicted(self) -> list[Candidate]:
        """Completed rows some cost of which was predicted and not measured."""

        def value(row: Row, metric: Metric) -> float | None:
            if not row.ok or all(row.mean(cost) is not None for cost in self.costs):
                return None
            measured = row.mean(metric)
            return row.predicted(metric) if measured is None and metric in self.costs else measured

        return self._candidates(value)

    def published(self, *, above_baseline: bool) -> list[Candidate]:
        """The paper's numbers, taken as exact; ``above_baseline``: whether the baseline is of the same test set."""
        return self._candidates(
            lambda row, metric: row.published.values.get(metric.name) if row.published else None,
            exact=True,
            above_baseline=above_baseline,
        )

    def _candidates(
        self, value: Callable[[Row, Metric], float | None], *, exact: bool = False, above_baseline: bool = True
    ) -> list[Candidate]:
        known = []
        for row in self.eval_set.rows:
            values = [found for metric in self.objectives if (found := value(row, metric)) is not None]
            if len(values) == len(self.objectives):
                known.append((row, values))
        signs = [1 if metric.direction == "lower" else -1 for metric in self.objectives]
        points = [[sign * number for sign, number in zip(signs, values, strict=True)] for _, values in known]

        def distinguishable(i: int, j: int, k: int) -> bool:
            metric = self.objectives[k]
            if exact or metric.deterministic:
                return True
            found = difference(known[i][0], known[j][0], metric, self.examples)
            return found is None or found.significant

        at_baseline = [above_baseline and self._at_baseline(values) for _, values in known]
        statuses = pareto_status(points, at_baseline, distinguishable)
        return [Candidate(row=row, values=v, status=s) for (row, v), s in zip(known, statuses, strict=True)]

    def _at_baseline(self, values: Sequence[float]) -> bool:
        """Whether a candidate is not above the baseline in any score, where each score has one."""
        scores = zip(values[len(self.costs) :], self.scores, strict=True)
        pairs = [(value, self.baselines[score]) for value, score in scores]
        return bool(pairs) and all(baseline is not None and value <= baseline for value, baseline in pairs)


def pareto_fronts(spec: Spec, rows: Sequence[Row], examples: ExampleScores) -> list[ParetoFront]:
    """One per evaluation set, over the spec's costs and scores."""
    wanted = [metrics.get(name) for name in spec.pareto.costs or [spec.pareto.cost]]
    found = [_known_cost(cost, rows) for cost in wanted]
    costs = dict(zip(found, wanted, strict=True))
    if len(costs) < len(wanted):  # one cost stands for several
        costs = {cost: cost for cost in found}
    fronts = []
    for eval_set in eval_sets(rows):
        scores = _scores(spec, eval_set.task)
        baselines = {score: _baseline(eval_set, score) for score in scores}
        front = ParetoFront(eval_set=eval_set, costs=costs, scores=scores, examples=examples, baselines=baselines)
        fronts.append(front)
    return fronts


def _known_cost(wanted: Metric, rows: Sequence[Row]) -> Metric:
    """The wanted cost if it was measured, or else predicted, in at least one completed row, or the first other one that
    was measured."""
    completed = [row for row in rows if row.ok]
    if any(row.mean(wanted) is not None or row.predicted(wanted) is not None for row in completed):
        return wanted
    others = [metrics.get(name) for name in OTHER_COSTS]
    return next((cost for cost in others if any(row.mean(cost) is not None for row in completed)), wanted)


def _scores(spec: Spec, task: str) -> list[Metric]:
    """Those of the spec that the task has; the metric by which it ranks methods if the spec names none of them."""
    others = set(metrics.task_scores()) - set(metrics.of_task(task))
    main = metrics.main(task)
    named = [name for name in spec.pareto.scores or [spec.pareto.score or main] if name not in others]
    return [metrics.get(name) for name in dict.fromkeys(named or [main])]


def _baseline(eval_set: EvalSet, score: Metric) -> float | None:
    """Value of the task's first baseline by the same metric; null without a completed cell."""
    if score.name == metrics.OVER_BASELINE:
        return 0.0
    first = next(iter(metrics.baselines(eval_set.task)))
    name = metrics.main(eval_set.task) if score.name == metrics.SCORE else score.name
    return metrics.in_unit((baselines_of(eval_set.rows) or [{}])[0].get(first, {}).get(name), name)

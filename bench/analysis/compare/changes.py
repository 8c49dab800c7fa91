"""What changed between two runs of a cell beyond noise: costs by a tolerance and their own spread, scores by a test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench import metrics
from bench.analysis.compare import tolerance
from bench.analysis.compare.match import Difference, Kind, MatchedRow
from bench.analysis.compare.tolerance import Tolerance
from bench.analysis.predictions import ExampleScores, Sample
from bench.analysis.rows import Row
from bench.analysis.statistics import difference
from bench.metrics import Metric
from bench.records.record import CellRecord

if TYPE_CHECKING:
    from bench.sources import StoredRecord

COSTS = (
    "params",
    "params_trainable",
    "adapter_size",
    "memory",
    "memory_reserved",
    "memory_eval",
    "memory_nvml",
    "memory_host",
    "step_time",
    "energy",
)
"""Compared unless ``--metrics`` names others; before the scores of the records' task."""
SAME = 1e-9
"""Two exact values that differ by less, relatively, differ by the rounding of the machine's numbers."""
Verdict = Literal["worse", "better", "within noise", "not measured", "not comparable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """What counts as a change."""

    alpha: float = 0.05
    """A score's change counts if its p, corrected for the number of tests (Holm 1979), is below."""
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    """Empty: ``COSTS`` and the scores of the records' task."""

    def tolerance(self, metric: Metric) -> Tolerance:
        """The user's, else the default."""
        return self.tolerances.get(metric.name, tolerance.default(metric))


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One metric of one row, in the metric's unit; means over the seeds that both sides measured."""

    metric: Metric
    a: float | None
    b: float | None
    verdict: Verdict
    reason: str = ""
    """Why it was not compared, or how."""
    noise: float | None = None
    """Of a cost: how large a change may be and mean nothing."""
    low: float | None = None
    high: float | None = None
    """Of a score: the change's interval at 95 %."""
    p: float | None = None
    """Of a score, corrected for the number of tests."""

    @property
    def change(self) -> float | None:
        return None if self.a is None or self.b is None else self.b - self.a


class BothSides(ExampleScores):
    """Scores of records of two sources, whose files of predictions lie in different folders under the same names."""

    def __init__(self, stored: Sequence[StoredRecord]) -> None:
        super().__init__(None)
        folders: dict[Path, ExampleScores] = {}
        self._records = [one.record for one in stored]  # kept, so that no other object gets one's id
        self._of = {id(one.record): folders.setdefault(one.folder, ExampleScores(one.folder)) for one in stored}

    def sample(self, record: CellRecord, metric: str) -> Sample | None:
        return self._of[id(record)].sample(record, metric)


def kind_of(metric: Metric, record: CellRecord) -> Kind:
    """Whether the pattern decides it, a run measures it, or it is a score."""
    if tolerance.is_exact(metric):
        return "exact"
    return "score" if metrics.underlying_score(record, metric.name) else "measured"


def changes_of(row: MatchedRow, examples: ExampleScores, rules: CompareOptions) -> list[Change]:
    """One per metric, scores not yet corrected for the number of tests (``corrected`` does)."""
    names = rules.metrics or (*COSTS, *metrics.of_task(row.pairs[0].b.record.task))
    differences = row.differences()
    return [_change(row, differences, metrics.get(name), examples, rules) for name in names]


def corrected(changes: Sequence[Change], rules: CompareOptions) -> list[Change]:
    """With the p of all tests adjusted together, step-down (Holm 1979), and the verdicts that follow."""
    tested = sorted((c.p, index) for index, c in enumerate(changes) if c.p is not None)
    adjusted, least = list(changes), 0.0
    for rank, (p, index) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - rank)))
        one = replace(adjusted[index], p=least)
        adjusted[index] = replace(one, verdict=_verdict_of_score(one, rules))
    return adjusted


def _change(
    row: MatchedRow, differences: Sequence[Difference], metric: Metric, examples: ExampleScores, rules: CompareOptions
) -> Change:
    kind = kind_of(metric, row.pairs[0].b.record)
    hidden = [str(found) for found in differences if kind in found.hides]
    pairs = [p for p in row.pairs if metric.value(p.a.record) is not None and metric.value(p.b.record) is not None]
    if kind != "exact":
        pairs = [p for p in pairs if p.a.record.status == p.b.record.status == "ok"]
    a = _group(row, [p.a.record for p in pairs] or [p.a.record for p in row.pairs])
    b = _group(row, [p.b.record for p in pairs] or [p.b.record for p in row.pairs])
    found = Change(metric=metric, a=a.mean(metric), b=b.mean(metric), verdict="within noise")
    if not pairs:
        return replace(found, verdict="not measured")
    if hidden:
        return replace(found, verdict="not comparable", reason="; ".join(hidden))
    if kind == "score":
        return _of_score(found, a, b, examples, rules)
    return _of_cost(found, a, b, examples, rules)


def _group(row: MatchedRow, records: Sequence[CellRecord]) -> Row:
    return Row(label=row.label, labels={}, cells=(), records=tuple(records), published=None)


def _of_cost(found: Change, a: Row, b: Row, examples: ExampleScores, rules: CompareOptions) -> Change:
    assert found.a is not None
    assert found.change is not None
    noise = max(rules.tolerance(found.metric).of(found.a), SAME * abs(found.a))
    if not tolerance.is_exact(found.metric):
        noise = max(noise, _of_steps(found.metric, a, b), _of_seeds(found.metric, a, b, examples))
    beyond = abs(found.change) > noise
    return replace(found, noise=noise, verdict=_direction(found) if beyond else "within noise")


def _of_steps(metric: Metric, a: Row, b: Row) -> float:
    """Standard deviation of the difference of two steps, one of each run; 0 for other metrics.

    The median of a run's steps is known better than one step is, but what makes two runs differ on one machine (clocks,
    other work, memory layout) lasts longer than a step, so the steps of one run do not show all of it.
    """
    if metric.name != "step_time":
        return 0.0
    return math.hypot(*(statistics.fmean(map(_step_deviation, group.ok)) for group in (a, b)))


def _step_deviation(record: CellRecord) -> float:
    """Milliseconds; from median and 95th percentile, as of normally distributed steps."""
    median, p95 = record.time.step_median_s, record.time.step_p95_s
    return 0.0 if median is None or p95 is None else 1e3 * (p95 - median) / statistics.NormalDist().inv_cdf(0.95)


def _of_seeds(metric: Metric, a: Row, b: Row, examples: ExampleScores) -> float:
    """Half of the interval of the difference over the seeds; 0 with one seed."""
    tested = difference(b, a, metric, examples)
    return (tested.high - tested.low) / 2 if tested else 0.0


def _of_score(found: Change, a: Row, b: Row, examples: ExampleScores, rules: CompareOptions) -> Change:
    tested = difference(b, a, found.metric, examples)
    if tested is None:
        return replace(found, verdict="not comparable", reason="one seed, and nothing is known of single examples")
    one = replace(found, low=tested.low, high=tested.high, p=tested.p, reason=tested.kind)
    return replace(one, verdict=_verdict_of_score(one, rules))


def _verdict_of_score(found: Change, rules: CompareOptions) -> Verdict:
    assert found.a is not None
    assert found.change is not None
    assert found.p is not None
    beyond = found.p < rules.alpha and abs(found.change) > rules.tolerance(found.metric).of(found.a)
    return _direction(found) if beyond else "within noise"


def _direction(found: Change) -> Verdict:
    more_is_better = found.metric.direction == "higher"
    return "better" if ((found.change or 0) > 0) == more_is_better else "worse"

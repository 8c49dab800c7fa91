"""Which rows of a column to mark as the best: the best value, and all that are statistically tied with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, eval_sets
from bench.analysis.statistics import ALPHA, DifferenceKind, difference, holm
from bench.metrics import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class BestMarks:
    """The marks of one column."""

    best: frozenset[int] = frozenset()
    """Indices of the rows to mark; empty where all are tied, or the noise is unknown."""
    pairs: int = 0
    """Pairs of rows, for which the tests are corrected: any of them might have been the best and another."""
    kinds: frozenset[DifferenceKind] = frozenset()
    """Tests used."""
    noise_unknown: bool = False
    """Whether the values differ, but one run of each leaves the noise unknown."""


def mark_best(rows: Sequence[Row], metric: Metric, examples: ExampleScores) -> BestMarks:
    """Compare the best value with all others of the same task and data.

    A metric that repeats exactly needs no test: the best printed value wins.
    """
    indices = {id(row): i for i, row in enumerate(rows)}
    marks = []
    for eval_set in eval_sets(rows):
        values = {indices[id(row)]: value for row in eval_set.rows if (value := row.mean(metric)) is not None}
        marks.append(_mark(rows, values, metric, examples))
    return BestMarks(
        best=frozenset().union(*(one.best for one in marks)),
        pairs=sum(one.pairs for one in marks),
        kinds=frozenset().union(*(one.kinds for one in marks)),
        noise_unknown=any(one.noise_unknown for one in marks),
    )


def _mark(rows: Sequence[Row], values: Mapping[int, float], metric: Metric, examples: ExampleScores) -> BestMarks:
    """``values``: index of a row -> its value."""
    printed = {i: round(value, metric.digits) for i, value in values.items()}
    if not metric.rankable or len(set(printed.values())) < 2:
        return BestMarks()
    first = (max if metric.direction == "higher" else min)(values, key=values.__getitem__)
    ties = {i for i, value in printed.items() if value == printed[first]}
    if metric.deterministic:
        return BestMarks(best=frozenset(ties))
    others = [i for i in values if i != first]
    tests = {i: test for i in others if (test := difference(rows[first], rows[i], metric, examples)) is not None}
    if not tests:
        return BestMarks(noise_unknown=True)
    pairs = len(values) * (len(values) - 1) // 2
    corrected = holm([test.p for test in tests.values()], pairs)
    worse = {i for i, p in zip(tests, corrected, strict=True) if p <= ALPHA} - ties
    return BestMarks(
        best=frozenset(values.keys() - worse) if worse else frozenset(),
        pairs=pairs,
        kinds=frozenset(test.kind for test in tests.values()),
    )

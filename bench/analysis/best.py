"""Which cells of a column to mark as the best: the one with the best value, and all that cannot be told from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, eval_sets
from bench.analysis.statistics import ALPHA, DifferenceKind, difference
from bench.metrics import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class BestMarks:
    """Of one column."""

    best: frozenset[int] = frozenset()
    """Places of the groups to mark; empty where all are alike, or nothing is known of the noise."""
    pairs: int = 0
    """Pairs of groups, for which the tests are corrected: any of them might have been the best and another."""
    kinds: frozenset[DifferenceKind] = frozenset()
    """Of the tests."""
    noise_unknown: bool = False
    """Whether the values differ, but one run of each says nothing of how much chance has in it."""


def mark_best(groups: Sequence[Row], metric: Metric, examples: ExampleScores) -> BestMarks:
    """Compare the best value with all others of the same task and data. What repeats exactly needs no test: there the
    best printed value wins."""
    places = {id(group): i for i, group in enumerate(groups)}
    found = []
    for one in eval_sets(groups):
        values = {places[id(group)]: value for group in one.rows if (value := group.mean(metric)) is not None}
        found.append(_of_one_set(groups, values, metric, examples))
    return BestMarks(
        best=frozenset().union(*(one.best for one in found)),
        pairs=sum(one.pairs for one in found),
        kinds=frozenset().union(*(one.kinds for one in found)),
        noise_unknown=any(one.noise_unknown for one in found),
    )


def _of_one_set(groups: Sequence[Row], values: dict[int, float], metric: Metric, examples: ExampleScores) -> BestMarks:
    printed = {i: round(value, metric.digits) for i, value in values.items()}
    if not metric.rankable or len(set(printed.values())) < 2:
        return BestMarks()
    first = (max if metric.direction == "higher" else min)(values, key=values.__getitem__)
    ties = {i for i, value in printed.items() if value == printed[first]}
    if metric.deterministic:
        return BestMarks(best=frozenset(ties))
    others = [i for i in values if i != first]
    found = {i: test for i in others if (test := difference(groups[first], groups[i], metric, examples)) is not None}
    if not found:
        return BestMarks(noise_unknown=True)
    pairs = len(values) * (len(values) - 1) // 2
    worse = _rejected({i: test.p for i, test in found.items()}, pairs) - ties
    return BestMarks(
        best=frozenset(values.keys() - worse) if worse else frozenset(),
        pairs=pairs,
        kinds=frozenset(test.kind for test in found.values()),
    )


def _rejected(p_values: Mapping[int, float], tests: int) -> set[int]:
    """Those that differ at the 5 % level together, by Holm's (1979) step-down procedure for ``tests`` tests, of which
    these are some."""
    rejected: set[int] = set()
    for place, i in enumerate(sorted(p_values, key=lambda i: (p_values[i], i))):
        if p_values[i] > ALPHA / (tests - place):
            break
        rejected.add(i)
    return rejected

"""The front is what nothing dominates, in any number of objectives, beyond noise and above the baseline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.pareto import pareto_status

POINTS = st.integers(1, 4).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, 6)] * k), min_size=0, max_size=25))


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, ...]]) -> None:
    found = pareto_status(points, [False] * len(points), lambda *_: True)
    assert found == ["dominated" if any(dominates(o, p) for o in points) else "front" for p in points]


@given(POINTS, st.data())
def test_what_is_at_the_baseline_is_not_on_the_front_and_dominates_nothing(
    points: list[tuple[int, ...]], data: st.DataObject
) -> None:
    low = data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points)))
    found = list(zip(pareto_status(points, low, lambda *_: True), points, low, strict=True))
    above = [point for _, point, at_baseline in found if not at_baseline]
    kept = [status for status, _, at_baseline in found if not at_baseline]
    assert kept == pareto_status(above, [False] * len(above), lambda *_: True)
    assert all((status == "baseline") == at_baseline for status, _, at_baseline in found)


@given(POINTS)
def test_where_nothing_is_significant_nothing_is_dominated(points: list[tuple[int, ...]]) -> None:
    assert "dominated" not in pareto_status(points, [False] * len(points), lambda *_: False)


def test_one_significant_winner_is_enough() -> None:
    """Both first points dominate the last, not significantly the one in the second objective."""
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 3.5)]
    assert pareto_status(points, [False] * 3, lambda _, j, k: (j, k) != (0, 1)) == ["front", "front", "dominated"]
    assert pareto_status(points, [False] * 3, lambda _, __, k: k != 1) == ["front", "front", "noise"]

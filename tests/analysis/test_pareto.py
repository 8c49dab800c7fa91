"""The front is what nothing beats, in any number of objectives; noise and floor are told from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.pareto import pareto_status

PLACES = st.integers(1, 4).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, 6)] * k), min_size=0, max_size=25))


def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(PLACES)
def test_the_front_is_what_nothing_beats(places: list[tuple[int, ...]]) -> None:
    found = pareto_status(places, [False] * len(places), lambda *_: True)
    wanted = ["dominated" if any(beats(other, place) for other in places) else "front" for place in places]
    assert found == wanted


@given(PLACES, st.data())
def test_what_is_on_the_floor_neither_stands_on_the_front_nor_beats(
    places: list[tuple[int, ...]], data: st.DataObject
) -> None:
    floored = data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    found = pareto_status(places, floored, lambda *_: True)
    above = [place for place, low in zip(places, floored, strict=True) if not low]
    kept = [standing for standing, low in zip(found, floored, strict=True) if not low]
    assert kept == pareto_status(above, [False] * len(above), lambda *_: True)
    assert all((standing == "baseline") == low for standing, low in zip(found, floored, strict=True))


@given(PLACES)
def test_where_nothing_can_be_told_apart_nothing_is_beaten(places: list[tuple[int, ...]]) -> None:
    assert "dominated" not in pareto_status(places, [False] * len(places), lambda *_: False)


def test_one_sure_winner_is_enough() -> None:
    """Both first places beat the last; it cannot be told from one of them in the second objective."""
    places = [(1.0, 3.0), (2.0, 2.0), (3.0, 3.5)]
    assert pareto_status(places, [False] * 3, lambda _, j, k: (j, k) != (0, 1)) == ["front", "front", "dominated"]
    assert pareto_status(places, [False] * 3, lambda _, __, k: k != 1) == ["front", "front", "noise"]

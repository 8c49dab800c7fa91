"""The largest batch that fits, from few predictions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import EstimateError
from bench.estimate.estimator import MAX_BATCH, largest_batch


def search(cost: Callable[[int], int], budget: int, start: int = 20) -> tuple[int, list[int]]:
    asked: list[int] = []

    def predict(batch: int) -> tuple[int, int]:
        asked.append(batch)
        return cost(batch), batch

    return largest_batch(predict, budget, start=start)[0], asked


@given(st.integers(0, 10**9), st.integers(1, 10**7), st.integers(0, 2 * 10**10), st.integers(1, 5000))
def test_is_the_last_that_fits(fixed: int, slope: int, budget: int, start: int) -> None:
    batch, _ = search(lambda b: fixed + slope * b, budget, start)
    assert batch == max(0, min(MAX_BATCH, (budget - fixed) // slope))


@given(st.integers(1, 400), st.integers(1, 200))
def test_is_the_last_that_fits_also_on_steps(true: int, start: int) -> None:
    """Segments come in multiples of 2 MiB and more: memory is a staircase, and not a straight one."""
    batch, _ = search(lambda b: (b // 7) * 20 + (b // 100) ** 2, (true // 7) * 20 + (true // 100) ** 2, start)
    cost = (batch // 7) * 20 + (batch // 100) ** 2
    following = ((batch + 1) // 7) * 20 + ((batch + 1) // 100) ** 2
    assert cost <= (true // 7) * 20 + (true // 100) ** 2 < following


def test_a_straight_line_needs_few_predictions() -> None:
    batch, asked = search(lambda b: 1_000_000 + 1234 * b, 1_000_000 + 1234 * 777)
    assert batch == 777
    assert len(asked) <= 12
    assert len(asked) == len(set(asked))


def test_a_bent_line_still_ends() -> None:
    batch, asked = search(lambda b: b**3, 4000**3, start=1)
    assert batch == 4000
    assert len(asked) < 40


def test_says_if_reserved_memory_shrinks() -> None:
    batch, remark = largest_batch(lambda b: (1000 + b - (300 if b >= 40 else 0), b), 1030, start=20)
    assert batch >= 30
    assert remark is not None
    assert "shrinks" in remark
    assert largest_batch(lambda b: (b, b), 30, start=20) == (30, None)


def test_refuses_if_allocated_memory_shrinks() -> None:
    with pytest.raises(EstimateError, match="allocate less"):
        largest_batch(lambda b: (b, 100 - b), 30, start=20)

"""The largest batch that fits a budget, from few predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from bench.errors import EstimateError

LIMIT = 1 << 16
"""No larger batch is tried."""
_PATIENCE = 12
"""Predictions after which halving takes over from the line."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a batch size is predicted to need."""

    process: int
    """Reserved by the allocator, and the context: what must fit."""
    allocated: int
    """In tensors: cannot shrink with a larger batch, while reserved memory may by a better fit of its blocks."""


@dataclass(frozen=True, slots=True)
class Largest:
    """The answer, and what to know about it."""

    batch: int
    """0 if not even one example fits."""
    remark: str | None = None


def largest(predict: Callable[[int], Need], budget: int, *, start: int) -> Largest:
    """A batch size that fits the budget, while the next one does not.

    Memory grows almost linearly with the batch: the line through the two ends of a bracket proposes the next size, from
    ``start`` on. Raises EstimateError if a larger batch is predicted to allocate less than a smaller one.
    """
    known: dict[int, Need] = {}

    def fits(batch: int) -> bool:
        known[batch] = predict(batch)
        return known[batch].process <= budget

    low, high = _bracket(fits, start)
    while high - low > 1:
        middle = _proposal(known, low, high, budget)
        if fits(middle):
            low = middle
        else:
            high = middle
    return Largest(low, _check(known))


def _bracket(fits: Callable[[int], bool], start: int) -> tuple[int, int]:
    """A size that fits (or 0) and a larger one that does not (or one above the limit)."""
    if fits(start):
        low = start
        while low < LIMIT:
            high = min(2 * low, LIMIT)
            if not fits(high):
                return low, high
            low = high
        return LIMIT, LIMIT + 1
    high = start
    while high > 1:
        low = high // 2
        if fits(low):
            return low, high
        high = low
    return 0, 1


def _proposal(known: dict[int, Need], low: int, high: int, budget: int) -> int:
    rise = known[high].process - known[low].process
    middle = (low + high) // 2
    if rise > 0 and len(known) <= _PATIENCE:
        middle = low + int((budget - known[low].process) * (high - low) / rise)
    return min(max(middle, low + 1), high - 1)


def _check(known: dict[int, Need]) -> str | None:
    """Whether memory grows with the batch."""
    remark = None
    for small, large in pairwise(sorted(known)):
        if known[large].allocated < known[small].allocated:
            raise EstimateError(
                f"no largest batch: a batch of {large} is predicted to allocate less than one of {small} "
                f"({known[large].allocated:,} against {known[small].allocated:,} bytes)"
            )
        if known[large].process < known[small].process:
            remark = f"reserved memory shrinks from batch {small} to {large}: a larger batch than this may fit, too"
    return remark

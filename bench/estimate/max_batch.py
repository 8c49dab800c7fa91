"""The largest batch that fits a budget, from few predictions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from bench.errors import EstimateError

LIMIT = 1 << 16
"""No larger batch is tried."""


def largest(process_bytes: Callable[[int], int], budget: int, *, start: int) -> int:
    """The largest batch size whose ``process_bytes`` is within the budget; 0 if even 1 is not.

    Memory grows almost linearly with the batch: the line through the two ends of the bracket proposes the next size,
    from ``start`` on. Raises EstimateError if a larger batch is predicted to need less than a smaller one by more than
    the allocator's rounding can explain.
    """
    known: dict[int, int] = {}

    def fits(batch: int) -> bool:
        known[batch] = process_bytes(batch)
        return known[batch] <= budget

    low, high = _bracket(fits, start)
    while high - low > 1:
        proposed = low + 1
        if low:
            slope = (known[high] - known[low]) / (high - low)
            proposed = low + int((budget - known[low]) / slope) if slope > 0 else (low + high) // 2
            if len(known) > _PATIENCE:
                proposed = (low + high) // 2
        middle = min(max(proposed, low + 1), high - 1)
        if fits(middle):
            low = middle
        else:
            high = middle
        _check(known)
    return low


_PATIENCE = 12
"""Predictions after which halving takes over from the line."""
_ROUNDING_BYTES = 64 << 20
"""What fragmentation and rounded segments may turn around between two batch sizes."""


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


def _check(known: dict[int, int]) -> None:
    sizes = sorted(known)
    for smaller, larger in pairwise(sizes):
        if known[larger] < known[smaller] - _ROUNDING_BYTES:
            raise EstimateError(
                f"no largest batch: a batch of {larger} is predicted to need less memory than one of {smaller} "
                f"({known[larger]:,} against {known[smaller]:,} bytes)"
            )

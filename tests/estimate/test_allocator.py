"""The simulated caching allocator against PyTorch's size classes, and against the same rules written plainly."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.estimate.allocator import MIB, Block, CachingAllocator


@pytest.mark.parametrize(
    ("nbytes", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # a rest of 1 MiB is not split off: it counts as allocated
        (23 * MIB, 24 * MIB, 24 * MIB),
    ],
)
def test_size_classes(nbytes: int, allocated: int, reserved: int) -> None:
    allocator = CachingAllocator()
    allocator.malloc(nbytes)
    assert (allocator.allocated, allocator.reserved) == (allocated, reserved)


def test_peaks_count_from_the_reset() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.malloc(100 * MIB))
    allocator.empty_cache()
    allocator.reset_peaks()
    allocator.malloc(10 * MIB)
    assert (allocator.allocated_peak, allocator.reserved_peak) == (10 * MIB, 10 * MIB)


class PlainRules:
    """Segments as lists of [small, size, id of the holder or 0 if free], searched from end to end."""

    def __init__(self) -> None:
        self.segments: list[list[list[int]]] = []

    def malloc(self, nbytes: int, holder: int) -> None:
        size = -(-nbytes // 512) * 512
        small = int(size <= MIB)
        free = [
            (piece[1], s, p)
            for s, segment in enumerate(self.segments)
            for p, piece in enumerate(segment)
            if piece[0] == small and not piece[2] and piece[1] >= size
        ]
        if not free:
            large = 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            self.segments.append([[small, 2 * MIB if small else large, 0]])
            free = [(0, len(self.segments) - 1, 0)]
        _, s, p = min(free)
        piece = self.segments[s][p]
        rest = piece[1] - size
        piece[2] = holder
        if rest >= 512 and (small or rest > MIB):
            piece[1] = size
            self.segments[s].insert(p + 1, [small, rest, 0])

    def free(self, holder: int) -> None:
        for s, segment in enumerate(self.segments):
            merged: list[list[int]] = []
            for pool, size, owner in segment:
                left = 0 if owner == holder else owner
                if merged and not left and not merged[-1][2]:
                    merged[-1][1] += size
                else:
                    merged.append([pool, size, left])
            self.segments[s] = merged

    def empty_cache(self) -> None:
        self.segments = [segment for segment in self.segments if len(segment) > 1 or segment[0][2]]

    def sums(self) -> tuple[int, int]:
        pieces = [piece for segment in self.segments for piece in segment]
        return sum(size for _, size, holder in pieces if holder), sum(size for _, size, _ in pieces)


SIZES = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 3 * MIB),
    st.integers(1, 64 * MIB),
    st.integers(1, 30).map(lambda size: size * MIB),  # where one rule ends and the next begins
)


@given(st.lists(st.tuples(st.integers(0, 9), SIZES), max_size=80))
def test_agrees_with_the_rules_written_plainly(events: list[tuple[int, int]]) -> None:
    allocator, plain = CachingAllocator(), PlainRules()
    live: list[tuple[Block, int]] = []
    for holder, (act, number) in enumerate(events, start=1):
        if act == 0:
            allocator.empty_cache()
            plain.empty_cache()
        elif act < 6 or not live:
            live.append((allocator.malloc(number), holder))
            plain.malloc(number, holder)
        else:
            block, freed = live.pop(number % len(live))
            allocator.free(block)
            plain.free(freed)
        assert (allocator.allocated, allocator.reserved) == plain.sums()
        spans = sorted((block.address, block.address + block.size) for block, _ in live)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "blocks overlap"
        assert allocator.allocated <= allocator.allocated_peak <= allocator.reserved_peak
    for block, _ in live:
        allocator.free(block)
    allocator.empty_cache()
    assert allocator.reserved == allocator.allocated == 0, "segments did not merge back to wholes"

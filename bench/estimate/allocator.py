"""PyTorch's CUDA caching allocator without CUDA: what it would allocate, reserve, split and merge.

The rules are those of ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings (no expandable segments, no
maximal split size, no rounding to powers of two) on one stream of a device that never runs out of memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 1 << 20
ROUND_BYTES = 512
"""Every request is rounded up to a multiple of this (``kMinBlockSize``)."""
SMALL_BYTES = MIB
"""Requests up to this size come from segments of their own kind (``kSmallSize``)."""
SMALL_SEGMENT_BYTES = 2 * MIB
MEDIUM_BYTES = 10 * MIB
"""Requests below this size share a segment of 20 MiB (``kMinLargeAlloc``, ``kLargeBuffer``)."""
MEDIUM_SEGMENT_BYTES = 20 * MIB
LARGE_ROUND_BYTES = 2 * MIB
"""Larger ones get a segment of their own size, rounded up to a multiple of this (``kRoundLarge``)."""


class Block:
    """A piece of a segment, in use or free."""

    __slots__ = ("address", "free", "next", "previous", "size", "small")

    def __init__(self, address: int, size: int, *, small: bool) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = True
        self.previous: Block | None = None
        self.next: Block | None = None


class CachingAllocator:
    """Bytes allocated and reserved now and at their peaks since the last ``reset_peaks``."""

    def __init__(self) -> None:
        self.allocated = 0
        self.reserved = 0
        self.allocated_peak = 0
        self.reserved_peak = 0
        self._address = 0
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        """Small or large pool -> (size, address) of its free blocks: the best fit comes first, then the lowest."""
        self._blocks: dict[int, Block] = {}
        """Address -> free block."""

    def malloc(self, nbytes: int) -> Block:
        """A block of at least ``nbytes`` > 0. It is counted with its whole size, as PyTorch does."""
        size = max(ROUND_BYTES, -(-nbytes // ROUND_BYTES) * ROUND_BYTES)
        block = self._best_fit(size) or self._new_segment(size)
        rest = block.size - size
        if rest >= ROUND_BYTES if block.small else rest > SMALL_BYTES:
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Give a block back to its pool, merged with its free neighbours."""
        self.allocated -= block.size
        block.free = True
        before, after = block.previous, block.next
        if before is not None and before.free:
            self._take(before)
            block = self._merge(before, block)
        if after is not None and after.free:
            self._take(after)
            block = self._merge(block, after)
        self._give(block)

    def empty_cache(self) -> None:
        """Return every segment that is wholly free to the device, as ``torch.cuda.empty_cache`` does."""
        for block in [b for b in self._blocks.values() if b.previous is None and b.next is None]:
            self._take(block)
            self.reserved -= block.size

    def reset_peaks(self) -> None:
        """Peaks count from here on, as after ``torch.cuda.reset_peak_memory_stats``."""
        self.allocated_peak, self.reserved_peak = self.allocated, self.reserved

    def _best_fit(self, size: int) -> Block | None:
        pool = self._free[size <= SMALL_BYTES]
        found = bisect_left(pool, (size, -1))
        if found == len(pool):
            return None
        return self._blocks.pop(pool.pop(found)[1])

    def _new_segment(self, size: int) -> Block:
        small = size <= SMALL_BYTES
        if small:
            total = SMALL_SEGMENT_BYTES
        elif size < MEDIUM_BYTES:
            total = MEDIUM_SEGMENT_BYTES
        else:
            total = -(-size // LARGE_ROUND_BYTES) * LARGE_ROUND_BYTES
        block = Block(self._address, total, small=small)
        self._address += total
        self.reserved += total
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, small=block.small)
        rest.previous, rest.next = block, block.next
        if block.next is not None:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._give(rest)

    def _merge(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.next = second.next
        if second.next is not None:
            second.next.previous = first
        return first

    def _give(self, block: Block) -> None:
        insort(self._free[block.small], (block.size, block.address))
        self._blocks[block.address] = block

    def _take(self, block: Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]
        del self._blocks[block.address]

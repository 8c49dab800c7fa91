"""Simulation of PyTorch's CUDA caching allocator: bytes allocated and reserved, splits and merges of blocks.

Follows ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings (no expandable segments, no maximal split size,
no rounding to powers of two) on one stream of a device with unlimited memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 1 << 20
ROUND_BYTES = 512  # kMinBlockSize: every request is rounded up to a multiple of it
SMALL_BYTES = MIB  # kSmallSize: requests up to it come from small segments
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
MEDIUM_BYTES = 10 * MIB  # kMinLargeAlloc: requests below it share a segment ...
MEDIUM_SEGMENT_BYTES = 20 * MIB  # ... of this size (kLargeBuffer)
LARGE_ROUND_BYTES = 2 * MIB  # kRoundLarge: larger requests get a segment of their size, rounded up to a multiple of it


@dataclass(eq=False, slots=True)
class Block:
    """A piece of a segment, in use or free."""

    address: int
    size: int
    small: bool
    free: bool = True
    previous: Block | None = None
    next: Block | None = None


class CachingAllocator:
    """Bytes allocated and reserved now, and their peaks since the last ``reset_peaks``."""

    def __init__(self) -> None:
        self.allocated = 0
        self.reserved = 0
        self.allocated_peak = 0
        self.reserved_peak = 0
        self._next_address = 0
        # pool (small or not) -> sorted (size, address) of its free blocks: the first that fits is the best fit
        self._pools: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._free_blocks: dict[int, Block] = {}  # by address

    def malloc(self, nbytes: int) -> Block:
        """A block of at least ``nbytes`` > 0. Its whole size counts as allocated, as in PyTorch."""
        size = max(ROUND_BYTES, round_up(nbytes, ROUND_BYTES))
        block = self._best_fit(size) or self._new_segment(size)
        rest = block.size - size
        if rest >= ROUND_BYTES if block.small else rest > SMALL_BYTES:
            self._split(block, size)
        block.free = False
        self.allocated += block.size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Return a block to its pool, merged with its free neighbours."""
        self.allocated -= block.size
        block.free = True
        before, after = block.previous, block.next
        if before is not None and before.free:
            self._remove(before)
            block = self._merge(before, block)
        if after is not None and after.free:
            self._remove(after)
            block = self._merge(block, after)
        self._insert(block)

    def empty_cache(self) -> None:
        """Return every wholly free segment to the device, as ``torch.cuda.empty_cache`` does."""
        for block in [b for b in self._free_blocks.values() if b.previous is None and b.next is None]:
            self._remove(block)
            self.reserved -= block.size

    def reset_peaks(self) -> None:
        """Start new peaks, as ``torch.cuda.reset_peak_memory_stats`` does."""
        self.allocated_peak, self.reserved_peak = self.allocated, self.reserved

    def _best_fit(self, size: int) -> Block | None:
        pool = self._pools[size <= SMALL_BYTES]
        index = bisect_left(pool, (size, -1))
        return None if index == len(pool) else self._free_blocks.pop(pool.pop(index)[1])

    def _new_segment(self, size: int) -> Block:
        small = size <= SMALL_BYTES
        if small:
            total = SMALL_SEGMENT_BYTES
        else:
            total = MEDIUM_SEGMENT_BYTES if size < MEDIUM_BYTES else round_up(size, LARGE_ROUND_BYTES)
        block = Block(self._next_address, total, small)
        self._next_address += total
        self.reserved += total
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.size - size, block.small, previous=block, next=block.next)
        if block.next is not None:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._insert(rest)

    def _merge(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.next = second.next
        if second.next is not None:
            second.next.previous = first
        return first

    def _insert(self, block: Block) -> None:
        insort(self._pools[block.small], (block.size, block.address))
        self._free_blocks[block.address] = block

    def _remove(self, block: Block) -> None:
        pool = self._pools[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]
        del self._free_blocks[block.address]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple

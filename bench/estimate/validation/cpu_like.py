"""On the meta device, what PyTorch does on a CPU: the counterpart of ``bench.estimate.meta_cuda_kernels``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.estimate.allocator import Block, CachingAllocator

aten = torch.ops.aten


class ByteCounter(CachingAllocator):
    """Counts the bytes asked for, as the CPU's allocator reports them; nothing is rounded, cached or reserved."""

    def malloc(self, nbytes: int) -> Block:
        """A block of exactly ``nbytes``."""
        self.allocated += nbytes
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return Block(0, nbytes, small=False)

    def free(self, block: Block) -> None:
        """Give it back."""
        self.allocated -= block.size


@contextmanager
def cpu_kernels() -> Iterator[None]:
    """Inside, ``scaled_dot_product_attention`` of meta tensors keeps what the CPU's kernels keep."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("scaled_dot_product_attention", _attention, "AutogradMeta")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The CPU has a fused kernel for attention without dropout; else it multiplies matrices."""
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -math.inf)
    if dropout_p == 0:
        fused: torch.Tensor = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
        return fused
    plain: torch.Tensor = aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]
    return plain

"""Memory that CUDA kernels take from the caching allocator while they run, and that a run on meta does not show.

Rules read from PyTorch 2.15's sources and headers; none of them could be measured on a GPU here. Not covered: what
cuDNN takes for convolutions and attention (it depends on the algorithm it picks) and sorting.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.estimate.gpus import Gpu

aten = torch.ops.aten
_LT_WORKSPACE_BYTES = 1 << 20
"""Of cuBLASLt, which adds a bias to a matrix product."""
_MANY_TOKENS = 3072
_FP32 = 4
_INT64 = 8


def scratch_of(gpu: Gpu, packet: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes, bytes, of what the kernel of this operation takes and gives back."""
    if packet is aten.addmm:
        return (_LT_WORKSPACE_BYTES,)
    if packet in (aten.mm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv):
        return (gpu.workspace_bytes,)
    if packet is aten._scaled_dot_product_flash_attention_backward:
        return _flash_backward(args[1])
    if packet is aten._scaled_dot_product_efficient_attention_backward:
        return _efficient_backward(args[1])
    if packet is aten.embedding_dense_backward:
        return _embedding_backward(args[0], args[1], args[2])
    return ()


def _flash_backward(query: torch.Tensor) -> tuple[int, ...]:
    """The query's gradient and a row sum, both accumulated in fp32, padded to blocks of 128 rows and 32 columns."""
    batch, heads, rows, width = query.shape
    rows, width = _up(rows, 128), _up(width, 32)
    return batch * rows * heads * width * _FP32, batch * heads * rows * _FP32


def _efficient_backward(query: torch.Tensor) -> tuple[int, ...]:
    """The row sums of gradient times output; in fp32 that product, too, is made as a whole."""
    batch, heads, rows, _ = query.shape
    row_sums = batch * heads * rows * _FP32
    return (row_sums, query.numel() * _FP32) if query.dtype is torch.float32 else (row_sums,)


def _embedding_backward(grad: torch.Tensor, indices: torch.Tensor, rows: int) -> tuple[int, ...]:
    """Above a few thousand tokens, indices are sorted and gradients summed segment by segment in fp32."""
    tokens = indices.numel()
    if tokens <= _MANY_TOKENS:
        return ()
    segments = tokens // 10 + min(tokens, rows)
    return (tokens * _INT64,) * 4 + (segments * grad.size(-1) * _FP32,)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

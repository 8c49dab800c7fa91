"""Memory that CUDA kernels take from the caching allocator while they run, and that a run on meta does not show.

Rules read from PyTorch's sources and headers (cuBLAS's by version, the others of 2.15); none of them could be measured
on a GPU here. Not covered: what cuDNN takes for convolutions and attention (it depends on the algorithm it picks) and
sorting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from bench.estimate.gpus import Cublas

aten = torch.ops.aten
_MANY_TOKENS = 3072
_FP32 = 4
_INT64 = 8


class Needs(NamedTuple):
    """Memory that a kernel takes beside its results, bytes."""

    scratch: tuple[int, ...] = ()
    """While it runs."""
    workspaces: tuple[tuple[str, int], ...] = ()
    """Library -> what it keeps from its first call in a thread on."""


def needs_of(cublas: Cublas, packet: Any, args: tuple[Any, ...]) -> Needs:
    """Of the kernel of this operation."""
    if packet is aten.addmm:
        return _of_cublas_lt(cublas)
    if packet in (aten.mm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv):
        if cublas.kept:
            return Needs(workspaces=(("cublas", cublas.workspace_bytes),))
        return Needs(scratch=(cublas.workspace_bytes,))
    if packet is aten._scaled_dot_product_flash_attention_backward:
        return Needs(scratch=_flash_backward(args[1]))
    if packet is aten._scaled_dot_product_efficient_attention_backward:
        return Needs(scratch=_efficient_backward(args[1]))
    if packet is aten.embedding_dense_backward:
        return Needs(scratch=_embedding_backward(args[0], args[1], args[2]))
    return Needs()


def _of_cublas_lt(cublas: Cublas) -> Needs:
    own = (cublas.lt_workspace_bytes,) if cublas.lt_workspace_bytes else ()
    if not cublas.kept:
        return Needs(scratch=own)
    also = (("cublas", cublas.workspace_bytes),) if cublas.lt_also_takes_workspace else ()
    return Needs(workspaces=(*also, *(("cublaslt", size) for size in own)))


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

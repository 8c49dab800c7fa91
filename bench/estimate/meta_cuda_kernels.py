"""On the meta device, PyTorch's choice of kernels for a CUDA device, as far as it decides memory.

Without it, attention and dropout are decomposed on meta into operations that allocate more than CUDA's fused kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from bench.errors import EstimateError
from bench.estimate.gpus import GpuGeneration

aten = torch.ops.aten
_FLASH_MIN_COMPUTE_MAJOR = 8
_FLASH_MAX_HEAD_SIZE = 256
_MASK_ALIGNMENT = 8  # elements; memory-efficient attention pads a mask's rows to a multiple of it


@contextmanager
def cuda_kernels(gpu: GpuGeneration) -> Iterator[None]:
    """Inside, attention, dropout and softmax of meta tensors keep what CUDA's kernels keep."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # a run on a CPU turns them on, and PyTorch decomposes upsampling for them
    torch.use_deterministic_algorithms(False)
    kernels: dict[str, Callable[..., torch.Tensor]] = {
        "scaled_dot_product_attention": partial(_attention, has_flash=gpu.compute_major >= _FLASH_MIN_COMPUTE_MAJOR),
        "dropout": _dropout,
        "softmax.int": partial(_softmax, aten._softmax),
        "log_softmax.int": partial(_softmax, aten._log_softmax),
    }
    try:
        with kernels_on_meta(kernels):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


@contextmanager
def kernels_on_meta(kernels: Mapping[str, Callable[..., torch.Tensor]]) -> Iterator[None]:
    """Inside, these kernels run for meta tensors, by ``aten`` operator."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    for name, kernel in kernels.items():
        library.impl(name, kernel, "AutogradMeta", allow_override=True)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A boolean attention mask as what PyTorch's attention adds to the scores; any other mask as it is."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), -math.inf)


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
    has_flash: bool,
) -> torch.Tensor:
    """Flash attention for 16-bit types without a mask, else memory-efficient attention, as PyTorch chooses.

    cuDNN's, which PyTorch prefers on Hopper, keeps the same. Shapes: (..., heads, length, head size).
    """
    if query.dim() == 3:
        q, k, v = (t.unsqueeze(0) for t in (query, key, value))
        mask = attn_mask if attn_mask is None or attn_mask.dim() < 3 else attn_mask.unsqueeze(0)
        options: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa, "has_flash": has_flash}
        return _attention(q, k, v, mask, dropout_p, is_causal, **options).squeeze(0)
    half = query.dtype in (torch.float16, torch.bfloat16)
    if has_flash and attn_mask is None and half and query.size(-1) <= _FLASH_MAX_HEAD_SIZE:
        flash: torch.Tensor = aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
        return flash
    _check_fused_kernel(query, key, has_flash=has_flash, grouped=enable_gqa)
    with_logsumexp = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    bias = None if attn_mask is None else _aligned_bias(attn_mask, query, key)
    efficient: torch.Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, with_logsumexp, dropout_p, is_causal, scale=scale
    )[0]
    return efficient


def _check_fused_kernel(query: torch.Tensor, key: torch.Tensor, *, has_flash: bool, grouped: bool) -> None:
    """Raise EstimateError where no fused kernel takes the call: the unfused one that PyTorch falls back to needs far
    more memory, in an order that is not modelled.
    """
    multiple = 8 if query.dtype is not torch.float32 else 4 if has_flash else 1
    reasons = {
        f"its heads are {query.size(-1)} wide, no multiple of {multiple}": query.size(-1) % multiple,
        "it has fewer key heads than query heads, and a mask or fp32": grouped and query.size(-3) != key.size(-3),
        "it is in bf16 before Ampere": query.dtype is torch.bfloat16 and not has_flash,
    }
    for reason, holds in reasons.items():
        if holds:
            raise EstimateError(f"scaled_dot_product_attention has no fused kernel for this call: {reason}")


def _aligned_bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    mask = additive_mask(mask, query.dtype)
    length = mask.size(-1)
    if length % _MASK_ALIGNMENT:
        mask = torch.nn.functional.pad(mask, (0, _MASK_ALIGNMENT - length % _MASK_ALIGNMENT))[..., :length]
    return mask.expand(*query.shape[:-1], key.size(-2))


def _dropout(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    if p == 0 or not train or input.numel() == 0:
        return input
    dropped: torch.Tensor = aten.native_dropout(input, p, train)[0]  # keeps a mask of one byte an element
    return dropped


def _softmax(kernel: Any, input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    # CUDA's kernel reads fp16 and writes fp32; any other input is converted first
    fused = input.dtype is torch.float16 and dtype is torch.float32
    output: torch.Tensor = kernel(input if fused or dtype is None else input.to(dtype), dim, fused)
    return output

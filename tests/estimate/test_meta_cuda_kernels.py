"""On meta, attention, dropout and softmax keep what CUDA's fused kernels keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from bench.errors import EstimateError
from bench.estimate.gpus import GPUS
from bench.estimate.meta_cuda_kernels import cuda_kernels
from tests.estimate.conftest import Trace

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
FLASH, EFFICIENT = "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"


def ran(call: Callable[[], torch.Tensor], gpu: str = "ampere") -> list[str]:
    with cuda_kernels(GPUS[gpu]), Trace() as trace:
        call()
    names: list[str] = trace.names
    return names


def qkv(dtype: torch.dtype, heads: int = 4, width: int = 64) -> torch.Tensor:
    return torch.empty(2, heads, 10, width, device="meta", dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(
    ("gpu", "dtype", "masked", "kernel"),
    [
        ("ampere", BF16, False, FLASH),
        ("ampere", F16, False, FLASH),
        ("ampere", BF16, True, EFFICIENT),
        ("ampere", F32, False, EFFICIENT),
        ("turing", F16, False, EFFICIENT),
    ],
)
def test_attention_takes_cudas_kernel_and_keeps_no_probabilities(
    gpu: str, dtype: torch.dtype, masked: bool, kernel: str
) -> None:
    saved: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    x = qkv(dtype)
    mask = torch.empty(2, 1, 1, 10, device="meta", dtype=torch.bool) if masked else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        names = ran(lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=mask), gpu)
    assert kernel in names
    assert "bmm" not in names, "attention was decomposed"
    assert sum(shape[-2:] == (10, 10) for shape in saved) == masked, "the mask alone"
    with Trace() as trace:
        F.scaled_dot_product_attention(x, x, x)
    assert EFFICIENT not in trace.names, "left behind"


def test_grouped_queries_give_the_queries_shape() -> None:
    query, key = qkv(BF16, heads=4), qkv(BF16, heads=2)
    with cuda_kernels(GPUS["ampere"]):
        out = F.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert out.shape == query.shape


@pytest.mark.parametrize(
    ("gpu", "dtype", "changes", "reason"),
    [
        ("ampere", F32, {"width": 62}, "62 wide"),
        ("turing", BF16, {}, "before Ampere"),
        ("ampere", F32, {"heads": 2}, "fewer key heads"),
    ],
)
def test_what_falls_back_to_the_unfused_kernel_is_refused(
    gpu: str, dtype: torch.dtype, changes: dict[str, Any], reason: str
) -> None:
    query, key = qkv(dtype, width=changes.get("width", 64)), qkv(dtype, **changes)
    with pytest.raises(EstimateError, match=reason), cuda_kernels(GPUS[gpu]):
        F.scaled_dot_product_attention(query, key, key, enable_gqa="heads" in changes)


def test_an_odd_mask_is_padded_and_cut() -> None:
    x = qkv(F32)
    mask = torch.empty(2, 1, 10, 10, device="meta")
    assert "constant_pad_nd" in ran(lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=mask))


def test_dropout_keeps_one_byte_an_element() -> None:
    x = torch.empty(8, device="meta", requires_grad=True)
    assert ran(lambda: F.dropout(x, 0.5, training=True))[0] == "native_dropout"
    assert ran(lambda: F.dropout(x, 0.5, training=False)) == ran(lambda: F.dropout(x, 0.0, training=True)) == []


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax_copies_bf16_but_not_fp16(function: Callable[..., torch.Tensor]) -> None:
    def names(dtype: torch.dtype) -> list[str]:
        x = torch.empty(2, 8, device="meta", dtype=dtype, requires_grad=True)
        return ran(lambda: function(x, -1, dtype=F32))

    assert "_to_copy" not in names(F16)
    assert "_to_copy" in names(BF16)


def test_deterministic_algorithms_of_a_run_on_the_cpu_are_off() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    image = torch.empty(1, 2, 8, 8, device="meta")
    assert ran(lambda: F.interpolate(image, scale_factor=2, mode="bilinear")) == ["upsample_bilinear2d"]
    assert torch.is_deterministic_algorithms_warn_only_enabled()

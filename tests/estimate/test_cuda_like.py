"""On meta, attention, dropout and softmax keep what CUDA's fused kernels keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import EstimateError
from bench.estimate.gpus import GPUS
from bench.estimate.meta_cuda_kernels import cuda_kernels

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32


class Ran(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of what ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def ran(call: Callable[[], torch.Tensor], gpu: str = "ampere") -> list[str]:
    with cuda_kernels(GPUS[gpu]), Ran() as mode:
        call()
    names: list[str] = mode.names
    return names


def qkv(dtype: torch.dtype, heads: int = 4) -> torch.Tensor:
    return torch.empty(2, heads, 10, 64, device="meta", dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(
    ("gpu", "dtype", "masked", "kernel"),
    [
        ("ampere", BF16, False, "_scaled_dot_product_flash_attention"),
        ("ampere", F16, False, "_scaled_dot_product_flash_attention"),
        ("ampere", BF16, True, "_scaled_dot_product_efficient_attention"),
        ("ampere", F32, False, "_scaled_dot_product_efficient_attention"),
        ("turing", F16, False, "_scaled_dot_product_efficient_attention"),
    ],
)
def test_attention_takes_the_kernel_cuda_would(gpu: str, dtype: torch.dtype, masked: bool, kernel: str) -> None:
    x = qkv(dtype)
    mask = torch.empty(2, 1, 1, 10, device="meta", dtype=torch.bool) if masked else None
    names = ran(lambda: functional.scaled_dot_product_attention(x, x, x, attn_mask=mask), gpu)
    assert kernel in names
    assert "bmm" not in names, "attention was taken apart"


def test_attention_keeps_no_probabilities() -> None:
    saved: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    x = qkv(F32)
    with cuda_kernels(GPUS["ampere"]), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        functional.scaled_dot_product_attention(x, x, x)
    assert saved
    assert all(shape[-2:] != (10, 10) for shape in saved)


def test_grouped_queries_give_the_queries_shape() -> None:
    query, key = qkv(BF16, heads=4), qkv(BF16, heads=2)
    with cuda_kernels(GPUS["ampere"]):
        out = functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert out.shape == query.shape


@pytest.mark.parametrize(
    ("gpu", "dtype", "width", "reason"),
    [("ampere", F32, 62, "62 wide"), ("turing", BF16, 64, "before Ampere")],
)
def test_what_falls_back_to_the_unfused_kernel_is_refused(
    gpu: str, dtype: torch.dtype, width: int, reason: str
) -> None:
    x = torch.empty(2, 4, 10, width, device="meta", dtype=dtype)
    with pytest.raises(EstimateError, match=reason), cuda_kernels(GPUS[gpu]):
        functional.scaled_dot_product_attention(x, x, x)


def test_grouped_queries_in_fp32_are_refused() -> None:
    query, key = qkv(F32, heads=4), qkv(F32, heads=2)
    with pytest.raises(EstimateError, match="fewer key heads"), cuda_kernels(GPUS["ampere"]):
        functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)


def test_an_odd_mask_is_padded_and_cut() -> None:
    x = qkv(F32)
    mask = torch.empty(2, 1, 10, 10, device="meta")
    assert "constant_pad_nd" in ran(lambda: functional.scaled_dot_product_attention(x, x, x, attn_mask=mask))


def test_dropout_keeps_one_byte_an_element() -> None:
    x = torch.empty(8, device="meta", requires_grad=True)
    assert ran(lambda: functional.dropout(x, 0.5, training=True))[0] == "native_dropout"
    with cuda_kernels(GPUS["ampere"]):
        assert functional.dropout(x, 0.5, training=False) is x
        assert functional.dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax_copies_bf16_but_not_fp16(function: Callable[..., torch.Tensor]) -> None:
    def names(dtype: torch.dtype) -> list[str]:
        x = torch.empty(2, 8, device="meta", dtype=dtype, requires_grad=True)
        return ran(lambda: function(x, -1, dtype=F32))

    assert "_to_copy" not in names(F16)
    assert "_to_copy" in names(BF16)


def test_nothing_stays_behind() -> None:
    x = qkv(F32)
    ran(lambda: functional.scaled_dot_product_attention(x, x, x))
    with Ran() as mode:
        functional.scaled_dot_product_attention(x, x, x)
    assert "_scaled_dot_product_efficient_attention" not in mode.names


def test_deterministic_algorithms_of_a_run_on_the_cpu_are_off() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    image = torch.empty(1, 2, 8, 8, device="meta")
    assert ran(lambda: functional.interpolate(image, scale_factor=2, mode="bilinear")) == ["upsample_bilinear2d"]
    assert torch.is_deterministic_algorithms_warn_only_enabled()

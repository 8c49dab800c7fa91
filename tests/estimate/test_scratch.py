"""Scratch memory of CUDA's kernels, by the rules read from PyTorch's sources: worked examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.estimate import operations
from bench.estimate.gpus import GPUS, Cublas, cublas_of
from bench.estimate.operations import KernelMemory, Operations, kernel_memory
from bench.estimate.tracker import TEMPORARY, WEIGHTS, Tracker

aten = torch.ops.aten
MIB = 1 << 20
SMALL, LARGE = 8_519_680, 32 * MIB
AMPERE = cublas_of(GPUS["ampere"], "2.15.0")
HOPPER = cublas_of(GPUS["hopper"], "2.15.0+cu130")


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def scratch_of(cublas: Cublas, packet: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    needs = kernel_memory(cublas, packet, args)
    assert needs.workspaces == ()
    return needs.scratch


def test_matrix_products_take_cublas_workspaces() -> None:
    assert scratch_of(AMPERE, aten.mm, ()) == (SMALL,)
    assert scratch_of(HOPPER, aten.bmm, ()) == (LARGE,)
    assert scratch_of(HOPPER, aten.addmm, ()) == (MIB,), "cuBLASLt's"
    assert scratch_of(AMPERE, aten.add, ()) == ()


@pytest.mark.parametrize(
    ("gpu", "torch_version", "product", "with_bias"),
    [
        ("ampere", "2.11.0", (("cublas", SMALL),), (("cublas", SMALL), ("cublaslt", MIB))),
        ("hopper", "2.11.0+cu128", (("cublas", LARGE),), (("cublas", LARGE), ("cublaslt", MIB))),
        ("blackwell", "2.11.0", (("cublas", SMALL),), (("cublas", SMALL), ("cublaslt", MIB))),
        ("ampere", "2.14.1", (("cublas", SMALL),), (("cublas", SMALL),)),
        ("hopper", "2.14.1+cu130", (("cublas", LARGE),), (("cublas", LARGE),)),
        ("blackwell", "2.14.1", (("cublas", LARGE),), (("cublas", LARGE),)),
    ],
)
def test_until_2_14_workspaces_are_kept(
    gpu: str, torch_version: str, product: tuple[tuple[str, int], ...], with_bias: tuple[tuple[str, int], ...]
) -> None:
    cublas = cublas_of(GPUS[gpu], torch_version)
    assert kernel_memory(cublas, aten.mm, ()) == KernelMemory(workspaces=product)
    assert kernel_memory(cublas, aten.addmm, ()) == KernelMemory(workspaces=with_bias)


def test_a_cache_that_the_environment_asks_for_is_kept_later_too() -> None:
    assert not cublas_of(GPUS["hopper"], "2.15.1").kept
    assert cublas_of(GPUS["hopper"], "2.15.1", cache="1").kept


@pytest.mark.parametrize(("torch_version", "lt"), [("2.11.0", MIB), ("2.14.1", 0), ("2.15.0", None)])
def test_training_keeps_a_workspace_for_each_of_its_two_threads(
    torch_version: str, lt: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Hopper, and into the evaluation after it; an evaluation alone keeps the program's own. No backward formula
    adds a bias, so none calls cuBLASLt."""
    forward, backward = (0, 0) if lt is None else (LARGE + lt, LARGE)
    monkeypatch.setattr(operations, "cublas_of", lambda gpu, _, cache: cublas_of(gpu, torch_version, cache=cache))
    tracker = Tracker(operations=Operations(GPUS["hopper"]))
    layer = torch.nn.Linear(64, 64, device="meta")
    x = tensor(8, 64)
    tracker.register([x, *layer.parameters()], WEIGHTS)
    before = tracker.allocator.allocated
    tracker.begin_phase()
    with tracker:
        with torch.no_grad():
            layer(x)
        assert tracker.allocator.allocated - before == forward
        layer(layer(x)).sum().backward()
        layer.zero_grad()
    assert tracker.allocator.allocated - before == forward + backward
    assert tracker.end_phase().by_kind[TEMPORARY] >= forward + backward
    tracker.begin_phase()
    assert tracker.end_phase().allocated_peak_bytes - before == forward + backward


def test_flash_attention_sums_in_fp32_over_padded_blocks() -> None:
    query = tensor(2, 3, 130, 40, dtype=torch.bfloat16)
    packet = aten._scaled_dot_product_flash_attention_backward
    assert scratch_of(AMPERE, packet, (None, query)) == (2 * 3 * 256 * 64 * 4, 2 * 3 * 256 * 4)


def test_efficient_attention_multiplies_in_full_only_in_fp32() -> None:
    packet = aten._scaled_dot_product_efficient_attention_backward
    sums = 2 * 3 * 130 * 4
    assert scratch_of(AMPERE, packet, (None, tensor(2, 3, 130, 40))) == (sums, 2 * 3 * 130 * 40 * 4)
    assert scratch_of(AMPERE, packet, (None, tensor(2, 3, 130, 40, dtype=torch.float16))) == (sums,)


def test_embeddings_of_many_tokens_are_sorted() -> None:
    packet = aten.embedding_dense_backward
    few, many = (tensor(n, dtype=torch.int64) for n in (3072, 8192))
    assert scratch_of(AMPERE, packet, (tensor(3072, 64), few, 100)) == ()
    indices, segments = 8192 * 8, (8192 // 10 + 100) * 64 * 4
    assert scratch_of(AMPERE, packet, (tensor(8192, 64), many, 100)) == (*(indices,) * 4, segments)


def test_scratch_counts_at_the_peak_and_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tensor(64, 64), tensor(64, 64)
    monkeypatch.setattr(operations, "cublas_of", lambda *_, **__: AMPERE)
    tracker = Tracker(operations=Operations(GPUS["ampere"]))
    tracker.begin_phase()
    with tracker:
        kept = [torch.mm(a, b), torch.mm(a, b)]
    phase = tracker.end_phase()
    assert tracker.allocator.allocated == sum(each.nbytes for each in kept)
    assert phase.by_kind[TEMPORARY] == 8_519_680
    assert phase.allocated_peak_bytes == 8_519_680 + tracker.allocator.allocated

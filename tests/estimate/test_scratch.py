"""Scratch memory of CUDA's kernels, by the rules read from PyTorch's sources: worked examples."""

from __future__ import annotations

import torch

from bench.estimate.gpus import GPUS
from bench.estimate.operations import Operations
from bench.estimate.scratch import scratch_of
from bench.estimate.tracker import TEMPORARY, Tracker

aten = torch.ops.aten
AMPERE, HOPPER = GPUS["ampere"], GPUS["hopper"]
MIB = 1 << 20


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def test_matrix_products_take_cublas_workspaces() -> None:
    assert scratch_of(AMPERE, aten.mm, ()) == (8_519_680,)
    assert scratch_of(HOPPER, aten.bmm, ()) == (32 * MIB,)
    assert scratch_of(HOPPER, aten.addmm, ()) == (MIB,), "cuBLASLt's"
    assert scratch_of(AMPERE, aten.add, ()) == ()


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


def test_scratch_counts_at_the_peak_and_is_given_back() -> None:
    a, b = tensor(64, 64), tensor(64, 64)
    tracker = Tracker(operations=Operations(AMPERE))
    tracker.begin_phase()
    with tracker:
        kept = [torch.mm(a, b), torch.mm(a, b)]
    phase = tracker.end_phase()
    assert tracker.allocator.allocated == sum(each.nbytes for each in kept)
    assert phase.by_kind[TEMPORARY] == 8_519_680
    assert phase.allocated_peak_bytes == 8_519_680 + tracker.allocator.allocated

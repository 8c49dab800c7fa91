"""Operations on meta: remembered calls change nothing; reads of data are answered, or refused by name; scratch memory
by the rules of PyTorch's sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import EstimateError
from bench.estimate.gpus import GPUS, MIB, cublas_of
from bench.estimate.operations import KernelMemory, Operations, kernel_memory
from bench.estimate.tracker import StorageTracker

aten = torch.ops.aten
SMALL, LARGE = 8_519_680, 32 * MIB
AMPERE, HOPPER = (cublas_of(GPUS[gpu], "2.15.0+cu130") for gpu in ("ampere", "hopper"))


class Through(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs everything through the given operations."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operations.run(func, args, kwargs or {}).out


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.mm.default, (tensor(3, 4), tensor(4, 5))),
        (aten.mm.default, (tensor(4, 3).t(), tensor(4, 5))),
        (aten.add.Tensor, (tensor(3, 1), tensor(1, 4))),
        (aten.native_layer_norm.default, (tensor(2, 8), [8], tensor(8), tensor(8), 1e-5)),
        (aten.native_dropout.default, (tensor(7), 0.1, True)),
        (aten.topk.default, (tensor(3, 9), 2)),
        (aten._softmax.default, (tensor(2, 5, dtype=torch.float16), -1, True)),
        (aten._foreach_sqrt.default, ([tensor(3), tensor(2, 2)],)),
    ],
)
def test_a_second_call_gives_what_the_first_did(func: Any, args: tuple[Any, ...]) -> None:
    operations = Operations(GPUS["ampere"])
    first, second = operations.run(func, args, {}), operations.run(func, args, {})
    outs = [list(out) if isinstance(out, list | tuple) else [out] for out in (first.out, second.out)]
    forms = [[(a.shape, a.stride(), a.dtype, a.device) for a in out] for out in outs]
    assert forms[0] == forms[1]
    assert not {a.untyped_storage()._cdata for a in outs[0]} & {b.untyped_storage()._cdata for b in outs[1]}
    assert len(first.made) == len(second.made) == len(outs[0])
    assert (first.flops, first.memory) == (second.flops, second.memory)


def test_types_of_numbers_are_distinguished() -> None:
    operations = Operations()
    x = tensor(3, dtype=torch.int64)
    types = [operations.run(aten.add.Tensor, (x, number), {}).out.dtype for number in (1, 1.0, 1, 2.5)]
    assert types == [torch.int64, torch.float32, torch.int64, torch.float32]


def test_views_and_in_place_operations_make_nothing() -> None:
    operations = Operations()
    x, y = tensor(4, 6), tensor(4, 6)
    for func, args in [
        (aten.view.default, (x, [24])),
        (aten._unsafe_view.default, (x, [6, 4])),
        (aten.t.default, (x,)),
        (aten.add_.Tensor, (x, y)),
    ] * 2:
        ran = operations.run(func, args, {})
        assert ran.out.untyped_storage()._cdata == x.untyped_storage()._cdata
        assert (ran.out is x) is (func is aten.add_.Tensor)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: tensor(1, dtype=torch.int64).sum().item(), r"value of a torch\.int64 tensor"),
        (lambda: tensor(1).sum().item(), r"value of a torch\.float32 tensor"),
        (lambda: tensor(2, 3, dtype=torch.int64).tolist(), r"\.tolist\(\)"),
        (lambda: tensor(3).nonzero(), r"aten\.nonzero"),
        (
            lambda: torch.sparse_coo_tensor(tensor(2, 3, dtype=torch.int64), tensor(3), (4, 4)),
            r"makes a torch\.sparse_coo tensor",
        ),
    ],
)
def test_what_depends_on_data_is_refused_by_name(act: Callable[[], object], message: str) -> None:
    with pytest.raises(EstimateError, match=message), Through(Operations()):
        act()


def test_reads_are_answered_where_nothing_depends_on_them() -> None:
    operations = Operations()
    with Through(operations):
        assert not tensor(3, dtype=torch.bool).all(), "a mask is assumed not to be trivial"
        operations.allow_reads = True
        assert tensor(2, 3, dtype=torch.int64).tolist() == [[0] * 3] * 2


def test_a_scalar_is_zero_no_longer_than_it_lives() -> None:
    overflow = torch.zeros(1, device="meta")
    with Through(Operations()):
        torch._amp_foreach_non_finite_check_and_unscale_([tensor(2)], overflow, tensor(1))
        assert overflow.item() == 0
        del overflow
        for _ in range(50):
            with pytest.raises(EstimateError):
                tensor(1).item()


def test_no_gradient_overflows() -> None:
    weight = torch.nn.Parameter(tensor(2))
    updates: list[int] = []
    with StorageTracker():
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, foreach=True)
        optimizer.register_step_post_hook(lambda *_: updates.append(1))
        scaler = torch.amp.GradScaler("meta")
        scaler.scale((weight * 2).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    assert updates == [1], "the loss scaler skipped the update"


@pytest.mark.parametrize(
    ("gpu", "torch_version", "product", "with_bias"),
    [
        ("ampere", "2.11.0", {"cublas": SMALL}, {"cublas": SMALL, "cublaslt": MIB}),
        ("hopper", "2.11.0+cu128", {"cublas": LARGE}, {"cublas": LARGE, "cublaslt": MIB}),
        ("blackwell", "2.11.0", {"cublas": SMALL}, {"cublas": SMALL, "cublaslt": MIB}),
        ("ampere", "2.14.1", {"cublas": SMALL}, {"cublas": SMALL}),
        ("hopper", "2.14.1+cu130", {"cublas": LARGE}, {"cublas": LARGE}),
        ("blackwell", "2.14.1", {"cublas": LARGE}, {"cublas": LARGE}),
    ],
)
def test_until_2_14_workspaces_are_kept(
    gpu: str, torch_version: str, product: dict[str, int], with_bias: dict[str, int]
) -> None:
    cublas = cublas_of(GPUS[gpu], torch_version)
    assert kernel_memory(cublas, aten.mm, ()) == KernelMemory(workspaces=tuple(product.items()))
    assert kernel_memory(cublas, aten.addmm, ()) == KernelMemory(workspaces=tuple(with_bias.items()))


def test_a_cache_that_the_environment_asks_for_is_kept_later_too() -> None:
    assert not cublas_of(GPUS["hopper"], "2.15.1").kept
    assert cublas_of(GPUS["hopper"], "2.15.1", cache="1").kept


QUERY = tensor(2, 3, 130, 40)
FEW, MANY = tensor(3072, dtype=torch.int64), tensor(8192, dtype=torch.int64)


@pytest.mark.parametrize(
    ("cublas", "packet", "args", "scratch"),
    [
        (AMPERE, aten.mm, (), (SMALL,)),
        (HOPPER, aten.bmm, (), (LARGE,)),
        (HOPPER, aten.addmm, (), (MIB,)),  # cuBLASLt's
        (AMPERE, aten.add, (), ()),
        # summed in fp32 over padded blocks
        (
            AMPERE,
            aten._scaled_dot_product_flash_attention_backward,
            (None, QUERY.bfloat16()),
            (2 * 3 * 256 * 64 * 4, 2 * 3 * 256 * 4),
        ),
        # multiplied in full only in fp32
        (
            AMPERE,
            aten._scaled_dot_product_efficient_attention_backward,
            (None, QUERY),
            (2 * 3 * 130 * 4, 2 * 3 * 130 * 40 * 4),
        ),
        (AMPERE, aten._scaled_dot_product_efficient_attention_backward, (None, QUERY.half()), (2 * 3 * 130 * 4,)),
        # sorted above 3072 tokens
        (AMPERE, aten.embedding_dense_backward, (tensor(3072, 64), FEW, 100), ()),
        (
            AMPERE,
            aten.embedding_dense_backward,
            (tensor(8192, 64), MANY, 100),
            (*(8192 * 8,) * 4, (8192 // 10 + 100) * 64 * 4),
        ),
    ],
)
def test_scratch_memory(cublas: Any, packet: Any, args: tuple[Any, ...], scratch: tuple[int, ...]) -> None:
    assert kernel_memory(cublas, packet, args) == KernelMemory(scratch=scratch)

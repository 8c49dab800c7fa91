"""Operations on meta: the memory of shapes changes nothing; what data would decide is answered, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import EstimateError
from bench.estimate.gpus import GPUS
from bench.estimate.operations import Operations
from bench.estimate.tracker import Tracker

aten = torch.ops.aten
META = torch.device("meta")


class Through(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs everything through the given operations, and counts how much of it was new."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operations.run(func, args, kwargs or {}).out


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device=META)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)


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
    assert all(same(a, b) for a, b in zip(*outs, strict=True))
    assert not {a.untyped_storage()._cdata for a in outs[0]} & {b.untyped_storage()._cdata for b in outs[1]}
    assert len(first.made) == len(second.made) == len(outs[0])
    assert (first.flops, first.memory) == (second.flops, second.memory)


def test_types_of_numbers_are_told_apart() -> None:
    operations = Operations()
    x = tensor(3, dtype=torch.int64)
    types = [operations.run(aten.add.Tensor, (x, number), {}).out.dtype for number in (1, 1.0, 1, 2.5)]
    assert types == [torch.int64, torch.float32, torch.int64, torch.float32]


def test_views_share_their_storage_and_make_nothing() -> None:
    operations = Operations()
    x = tensor(4, 6)
    for func, args in (
        (aten.view.default, (x, [24])),
        (aten._unsafe_view.default, (x, [6, 4])),
        (aten.t.default, (x,)),
    ):
        for _ in range(2):
            ran = operations.run(func, args, {})
            assert ran.out.untyped_storage()._cdata == x.untyped_storage()._cdata


def test_in_place_operations_return_their_argument() -> None:
    operations = Operations()
    x, y = tensor(4), tensor(4)
    for _ in range(2):
        ran = operations.run(aten.add_.Tensor, (x, y), {})
        assert ran.out is x
        assert not [made for made in ran.made if made is not x]


def test_a_mask_is_taken_not_to_be_trivial() -> None:
    with Through(Operations()):
        assert not tensor(3, dtype=torch.bool).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_reading_a_number_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(EstimateError, match=f"value of a {dtype} tensor"), Through(Operations()):
        tensor(1, dtype=dtype).sum().item()


def test_a_shape_that_depends_on_data_is_refused_by_name() -> None:
    with pytest.raises(EstimateError, match=r"aten\.nonzero"), Through(Operations()):
        tensor(3).nonzero()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_tensor_is_refused_by_name() -> None:
    with pytest.raises(EstimateError, match=r"makes a torch\.sparse_coo tensor"), Through(Operations()):
        torch.sparse_coo_tensor(tensor(2, 3, dtype=torch.int64), tensor(3), (4, 4))


def test_results_are_read_as_zeros_only_where_nothing_depends_on_them() -> None:
    operations = Operations()
    with Through(operations):
        with pytest.raises(EstimateError, match=r"\.tolist\(\)"):
            tensor(2, 3, dtype=torch.int64).tolist()
        operations.allow_reads = True
        assert tensor(2, 3, dtype=torch.int64).tolist() == [[0] * 3] * 2


def test_a_scalar_is_zero_no_longer_than_it_lives() -> None:
    operations = Operations()
    found = torch.zeros(1, device=META)
    with Through(operations):
        torch._amp_foreach_non_finite_check_and_unscale_([tensor(2)], found, tensor(1))
        assert found.item() == 0
        del found
        for _ in range(50):
            with pytest.raises(EstimateError):
                tensor(1).item()


def test_no_gradient_overflows() -> None:
    weight = torch.nn.Parameter(tensor(2))
    before: list[int] = []
    with Tracker() as tracker:
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, foreach=True)
        optimizer.register_step_post_hook(lambda *_: before.append(1))
        scaler = torch.amp.GradScaler("meta")
        scaler.scale((weight * 2).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    assert before == [1], "the loss scaler skipped the update"
    assert tracker.backward_flops == 0


def test_flops_are_counted_in_replays_too() -> None:
    x, w = tensor(3, 4), torch.nn.Parameter(tensor(4, 5))
    tracker = Tracker()
    with tracker:
        for _ in range(2):
            torch.mm(x, w).sum().backward()  # type: ignore[no-untyped-call]
    assert tracker.forward_flops == 2 * (2 * 3 * 4 * 5)
    assert tracker.backward_flops == 2 * (2 * 3 * 4 * 5)  # the weight's gradient; the input is frozen

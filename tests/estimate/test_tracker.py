"""The lives of storages in small programs whose memory is plain; gradients summed as autograd sums them alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from bench.estimate import operations
from bench.estimate.gpus import GPUS, MIB, cublas_of
from bench.estimate.operations import Operations, OpResult
from bench.estimate.tracker import ACTIVATIONS, GRADIENTS, INPUTS, OPTIMIZER_STATE, TEMPORARY, WEIGHTS, StorageTracker

PAGE = 4096
"""Bytes of a tensor of 1024 elements."""


def tensor(elements: int = 1024, *, device: str = "meta") -> torch.Tensor:
    return torch.empty(elements, device=device)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_storage_lives_until_its_last_view_dies(device: str) -> None:
    tracker = StorageTracker(device=device)
    with tracker:
        x = tensor(device=device)
        x.add_(1).view(-1, 2).mul_(2).t_()
        x.unsqueeze_(0)
        view = x.view(32, 32).t()[1:]
        assert tracker.allocator.allocated_peak == tracker.allocator.allocated == PAGE
        del x
        assert tracker.allocator.allocated == PAGE
        del view
        assert tracker.allocator.allocated == 0
        x = tensor(device=device)
        for _ in range(5):
            x = x + 1
    assert tracker.allocator.allocated_peak == 2 * PAGE, "the highest sum"


def test_what_is_not_on_the_device_does_not_count() -> None:
    with StorageTracker() as tracker:
        kept = torch.ones(1024)
    assert tracker.allocator.allocated == 0
    assert kept.device.type == "cpu"


def test_a_phase_begins_with_what_is_alive() -> None:
    tracker = StorageTracker()
    with tracker:
        kept, gone = tensor(), tensor(16 * 1024)
        del gone
        tracker.begin_phase()
        kept = kept + 1
    phase = tracker.end_phase()
    assert phase.allocated_peak_bytes == phase.by_kind[ACTIVATIONS] == 2 * PAGE


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_step_is_split_by_kinds(device: str) -> None:
    """At its peak an update by momentum: weight, gradient, momentum, and foreach's temporary."""
    weight = torch.nn.Parameter(tensor(device=device))
    batch = tensor(device=device)
    tracker = StorageTracker(device=device)
    tracker.register([weight], WEIGHTS)
    tracker.register([batch], INPUTS)
    tracker.begin_phase()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False)
    with tracker, tracker.training([weight]):
        for _ in range(2):
            optimizer.zero_grad()
            (weight * batch).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    kinds = tracker.end_phase().by_kind
    assert (kinds[WEIGHTS], kinds[INPUTS], kinds[GRADIENTS], kinds[OPTIMIZER_STATE]) == (PAGE,) * 4
    assert kinds[TEMPORARY] == PAGE, "the gradient with its weight decay"


def test_a_shared_storage_counts_once() -> None:
    weight = tensor()
    tracker = StorageTracker()
    tracker.register([weight, weight.view(32, 32), torch.nn.Parameter(weight)], WEIGHTS)
    assert tracker.allocator.allocated == PAGE


def test_flops_are_counted_in_repeated_calls_too() -> None:
    x, w = torch.empty(3, 4, device="meta"), torch.nn.Parameter(torch.empty(4, 5, device="meta"))
    with StorageTracker() as tracker:
        for _ in range(2):
            torch.mm(x, w).sum().backward()  # type: ignore[no-untyped-call]
    assert tracker.forward_flops == 2 * (2 * 3 * 4 * 5)
    assert tracker.backward_flops == 2 * (2 * 3 * 4 * 5)  # the weight's gradient; the input is frozen


@pytest.mark.parametrize(("torch_version", "lt"), [("2.11.0", MIB), ("2.14.1", 0), ("2.15.0", None)])
def test_training_keeps_a_workspace_for_each_of_its_two_threads(
    torch_version: str, lt: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Hopper, and into the evaluation after it; an evaluation alone keeps the program's own. No backward formula
    adds a bias, so none calls cuBLASLt."""
    large = 32 * MIB
    forward, backward = (0, 0) if lt is None else (large + lt, large)
    monkeypatch.setattr(operations, "cublas_of", lambda gpu, _, cache: cublas_of(gpu, torch_version, cache=cache))
    tracker = StorageTracker(operations=Operations(GPUS["hopper"]))
    layer = torch.nn.Linear(64, 64, device="meta")
    x = torch.empty(8, 64, device="meta")
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
    assert tracker.end_phase().by_kind[TEMPORARY] >= max(forward + backward, large), "scratch counts at the peak"
    tracker.begin_phase()
    assert tracker.end_phase().allocated_peak_bytes - before == forward + backward


SIZE = 64
SUMS = ("add", "add_")
kept: list[torch.Tensor] = []


def leaf(*shape: int) -> torch.Tensor:
    return torch.ones(*(shape or (SIZE, SIZE))).mul_(0.5).requires_grad_()


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(_: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] + grads[0].cos()


def used_twice() -> torch.Tensor:
    x = leaf() * 2
    return x.sin() + x.cos()


def used_four_times() -> torch.Tensor:
    x = leaf() * 2
    return x.sin() + x.cos() + x.tanh() + x.exp()


def residual_stream() -> torch.Tensor:
    x, w = leaf(), leaf()
    for _ in range(3):
        x = x + F.gelu(F.layer_norm(x, (SIZE,)) @ w)
    return x


def tied_embedding() -> torch.Tensor:
    table = leaf(300, SIZE)
    return F.cross_entropy(F.embedding(torch.arange(9), table) @ table.t(), torch.arange(9))


def tied_embedding_under_autocast() -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return tied_embedding()


def gradient_held_elsewhere() -> torch.Tensor:
    x = leaf() * 2
    first = x.sin()
    x.register_hook(kept.append)  # type: ignore[no-untyped-call]
    first.register_hook(kept.append)  # type: ignore[no-untyped-call]
    return first + x


def expanded_gradient() -> torch.Tensor:
    x = leaf() * 2
    return x.sum() + x.sin().sum()


def gradient_that_is_a_view() -> torch.Tensor:
    x = leaf() * 2
    return x.t() @ x + x.reshape(-1)[: SIZE * SIZE].view(SIZE, SIZE)


def sums_in_a_custom_formula() -> torch.Tensor:
    x: torch.Tensor = Doubling.apply(leaf()).sin()
    sums: torch.Tensor = x + Doubling.apply(x)
    return sums


def attention() -> torch.Tensor:
    x, weights = leaf(8, SIZE), [leaf() for _ in range(3)]
    q, k, v = (x @ w for w in weights)
    return F.softmax(q @ k.t(), -1) @ v + x


class Counting(Operations):
    def __init__(self) -> None:
        super().__init__()
        self.sums: Counter[str] = Counter()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OpResult:
        self.sums[func.overloadpacket.__name__] += 1
        return super().run(func, args, kwargs)


def alone(case: Callable[[], torch.Tensor]) -> dict[str, int]:
    loss = case().sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()  # type: ignore[no-untyped-call]
    names = Counter(event.name() for event in profile.profiler.kineto_results.events())
    return {name: names[f"aten::{name}"] for name in SUMS}


def followed(case: Callable[[], torch.Tensor], **options: bool) -> dict[str, int]:
    counting = Counting()
    with StorageTracker(device="cpu", operations=counting, **options):  # type: ignore[arg-type]
        loss = case().sum()
        counting.sums.clear()
        loss.backward()  # type: ignore[no-untyped-call]
    return {name: counting.sums[name] for name in SUMS}


OLD_NODES = pytest.mark.xfail(
    torch.__version__ < "2.12", reason="torch 2.11 does not tell the nodes of functions in Python apart"
)


@pytest.mark.parametrize(
    "case",
    [
        used_twice,
        used_four_times,
        residual_stream,
        tied_embedding,
        tied_embedding_under_autocast,
        gradient_held_elsewhere,
        expanded_gradient,
        gradient_that_is_a_view,
        pytest.param(sums_in_a_custom_formula, marks=OLD_NODES),
        attention,
    ],
)
def test_a_backward_pass_sums_as_it_would_alone(case: Callable[[], torch.Tensor]) -> None:
    assert followed(case) == alone(case)


def test_without_the_rule_nothing_is_summed_in_place() -> None:
    """So the test above can fail, and MemTracker can be compared with."""
    assert alone(used_twice) == {"add": 0, "add_": 1}
    assert followed(used_twice, sums_in_place=False) == {"add": 1, "add_": 0}

"""Sums of gradients are followed as autograd makes them when no mode watches; the profiler of a plain run shows how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from bench.estimate.operations import Operations, OpResult
from bench.estimate.tracker import Tracker

Case = Callable[[], torch.Tensor]

SIZE = 64
SUMS = ("add", "add_")
kept: list[torch.Tensor] = []


def leaf(*shape: int) -> torch.Tensor:
    return torch.ones(*(shape or (SIZE, SIZE))).mul_(0.5).requires_grad_()


class Own(torch.autograd.Function):
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


def gradient_that_somebody_holds() -> torch.Tensor:
    x = leaf() * 2
    first = x.sin()
    x.register_hook(kept.append)  # type: ignore[no-untyped-call]
    first.register_hook(kept.append)  # type: ignore[no-untyped-call]
    return first + x


def gradient_that_is_no_block() -> torch.Tensor:
    x = leaf() * 2
    return x.sum() + x.sin().sum()


def gradient_that_is_a_view() -> torch.Tensor:
    x = leaf() * 2
    return x.t() @ x + x.reshape(-1)[: SIZE * SIZE].view(SIZE, SIZE)


def sums_in_a_formula_of_ones_own() -> torch.Tensor:
    x: torch.Tensor = Own.apply(leaf()).sin()
    sums: torch.Tensor = x + Own.apply(x)
    return sums


def attention() -> torch.Tensor:
    x, weights = leaf(8, SIZE), [leaf() for _ in range(3)]
    q, k, v = (x @ w for w in weights)
    return F.softmax(q @ k.t(), -1) @ v + x


CASES = [
    used_twice,
    used_four_times,
    residual_stream,
    tied_embedding,
    tied_embedding_under_autocast,
    gradient_that_somebody_holds,
    gradient_that_is_no_block,
    gradient_that_is_a_view,
    sums_in_a_formula_of_ones_own,
    attention,
]


class Noting(Operations):
    def __init__(self) -> None:
        super().__init__()
        self.sums: Counter[str] = Counter()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> OpResult:
        self.sums[func.overloadpacket.__name__] += 1
        return super().run(func, args, kwargs)


def alone(case: Case) -> dict[str, int]:
    loss = case().sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss.backward()  # type: ignore[no-untyped-call]
    names = Counter(event.name() for event in profile.profiler.kineto_results.events())
    return {name: names[f"aten::{name}"] for name in SUMS}


def followed(case: Case, **options: bool) -> dict[str, int]:
    operations = Noting()
    with Tracker(device="cpu", operations=operations, **options):  # type: ignore[arg-type]
        loss = case().sum()
        operations.sums.clear()
        loss.backward()  # type: ignore[no-untyped-call]
    return {name: operations.sums[name] for name in SUMS}


OLD_NODES = pytest.mark.xfail(
    torch.__version__ < "2.12", reason="torch 2.11 does not tell the nodes of functions in Python apart"
)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=OLD_NODES) if case is sums_in_a_formula_of_ones_own else case for case in CASES]
)
def test_a_backward_pass_sums_as_it_would_alone(case: Case) -> None:
    assert followed(case) == alone(case)


def test_without_the_rule_nothing_is_summed_in_place() -> None:
    """So the test above can fail, and MemTracker can be compared with."""
    assert alone(used_twice) == {"add": 0, "add_": 1}
    assert followed(used_twice, sums_in_place=False) == {"add": 1, "add_": 0}

"""Estimates of small cells, and a trace of operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.estimate.estimator import Estimator
from bench.records.costs import Estimate
from bench.spec.cell import Cell
from tests.worker.conftest import make_cell as make_cell  # the same small cell as a run's


@pytest.fixture(autouse=True)
def not_deterministic() -> None:
    """A run on the CPU that another test made in this process leaves deterministic algorithms switched on."""
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def estimator() -> Estimator:
    """One for all tests: what it learns about shapes serves the next."""
    return Estimator()


@pytest.fixture(scope="session")
def estimate(estimator: Estimator, make_cell: Callable[..., Cell]) -> Callable[..., Estimate]:
    """Estimate the small cell with changes: ``estimate(train={"precision": "bf16"})``. Nothing may be refused."""

    def of(**changes: object) -> Estimate:
        found = estimator.estimate(make_cell(**changes))
        assert found.refused == []
        return found

    return of


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators in order, each with the shapes and types of its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log: list[tuple[str, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.log.append((str(func), *(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in tensors)))
        return out

    @property
    def names(self) -> list[str]:
        """``softmax`` for ``aten.softmax.int``, in order."""
        return [entry[0].split(".")[1] for entry in self.log]

"""Estimates of small cells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

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

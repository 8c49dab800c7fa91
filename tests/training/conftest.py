"""The small cell of a worker's tests, its model, and a step of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.spec.cell import Cell
from bench.training.adapt import AppliedMethod, adapt
from tests import factories
from tests.worker.conftest import make_cell as make_cell

Make = Callable[..., Cell]
Build = Callable[..., tuple[Any, dict[str, AppliedMethod]]]


@pytest.fixture(scope="session")
def build() -> Build:
    """The adapted model of a cell: ``build(cell, "meta")``; always with the same weights."""

    def built(cell: Cell, device: str = "cpu", texts: tuple[str, ...] = ("what shape is it yes no",)) -> Any:
        torch.manual_seed(0)
        model = factories.plugin("models", cell.model.family).build(cell.model, texts=texts, device=device)
        return model, adapt(model, model.part_facts, cell.parts, cell.methods)

    return built

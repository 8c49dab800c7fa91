"""MISS has the paper's parameters, and all 23 rows of Tables 1-4 print the paper's #Params to the last digit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from bench.models import miss
from bench.models.miss.model import MissModel
from bench.spec.cell import expand
from bench.spec.load import read_spec
from bench.training.adapt import adapt
from bench.training.params import count_params


@pytest.fixture(scope="module")
def base() -> MissModel:
    return miss.build(miss.Settings(family="miss", preset="base"), texts=["yes no"], device="meta")


def test_base_has_the_parameters_of_miss(base: MissModel) -> None:
    counts = {part: sum(p.numel() for p in base.part(part).parameters()) for part in miss.PARTS}
    assert counts == {"vit": 86_339_328, "jtm": 137_258_496, "dec": 137_881_148}
    assert sum(p.numel() for p in base.module.parameters()) == 361_478_972


@pytest.mark.parametrize(("table", "rows"), [(1, 10), (2, 4), (3, 5), (4, 4)])
def test_share_of_trained_parameters_is_the_papers(base: MissModel, root: Path, table: int, rows: int) -> None:
    resolved = read_spec(root / f"specs/table{table}.yaml").resolve("paper")
    assert resolved.spec.published is not None
    cells, published = expand(resolved), resolved.spec.published.rows
    assert len(cells) == rows
    for cell, row in zip(cells, published, strict=True):
        model = copy.deepcopy(base)
        adapters = adapt(model, miss.PARTS, cell.parts, cell.methods)
        assert f"{count_params(model, cell.parts, adapters).pct:.3f}" == f"{float(row['params']):.3f}", cell.label

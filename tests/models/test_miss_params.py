"""MISS has the paper's parameters, and all 23 rows of Tables 1-4 print the paper's #Params to the last digit."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import pytest

from bench.methods import ia3, lora, prefix, ptuning_v2
from bench.models import miss
from bench.models.miss.model import MissModel
from bench.plugins.settings import MethodSettings
from bench.training.adapt import adapt
from bench.training.params import count_params

# MILE (Chen et al., MICCAI 2024), Tables 1-4: ViT, JTM, decoder, rank, #Params as printed.
ROWS = [
    (1, "F", "LoRA", "LoRA", 4, "0.163"),
    (1, "F", "LoRA", "LoRA", 8, "0.325"),
    (1, "LoRA", "LoRA", "LoRA", 4, "0.327"),
    (1, "LoRA", "LoRA", "LoRA", 8, "0.652"),
    (1, "F", "T", "LoRA", 4, "38.022"),
    (1, "F", "T", "LoRA", 8, "38.072"),
    (1, "T", "LoRA", "LoRA", 4, "24.009"),
    (1, "T", "LoRA", "LoRA", 8, "24.133"),
    (1, "T", "T", "LoRA", 4, "61.887"),
    (1, "T", "T", "LoRA", 8, "61.919"),
    (2, "F", "F", "Prefix", None, "3.926"),
    (2, "F", "Prefix", "Prefix", None, "7.556"),
    (2, "T", "Prefix", "Prefix", None, "29.636"),
    (2, "T", "T", "Prefix", None, "63.354"),
    (3, "F", "IA3", "IA3", None, "0.051"),
    (3, "IA3", "IA3", "IA3", None, "0.061"),
    (3, "T", "IA3", "IA3", None, "23.924"),
    (3, "F", "T", "IA3", None, "37.987"),
    (3, "T", "T", "IA3", None, "61.866"),
    (4, "F", "PTV2", "PTV2", None, "0.102"),
    (4, "F", "F", "PTV2", None, "0.051"),
    (4, "T", "PTV2", "PTV2", None, "23.963"),
    (4, "T", "T", "PTV2", None, "61.876"),
]


@pytest.fixture(scope="module")
def base() -> MissModel:
    return miss.build(miss.Settings(family="miss", preset="base"), texts=["yes no"], device="meta")


def test_base_has_the_parameters_of_miss(base: MissModel) -> None:
    counts = {part: sum(p.numel() for p in base.part(part).parameters()) for part in miss.PARTS}
    assert counts == {"vit": 86_339_328, "jtm": 137_258_496, "dec": 137_881_148}
    assert sum(p.numel() for p in base.module.parameters()) == 361_478_972


@pytest.mark.parametrize(("vit", "jtm", "dec", "rank", "printed"), [row[1:] for row in ROWS])
def test_share_of_trained_parameters_is_the_papers(
    base: MissModel, vit: str, jtm: str, dec: str, rank: int | None, printed: str
) -> None:
    methods: dict[str, MethodSettings] = {
        "LoRA": lora.Settings(type="lora", r=rank or 1),
        "Prefix": prefix.Settings(type="prefix"),
        "IA3": ia3.Settings(type="ia3"),
        "PTV2": ptuning_v2.Settings(type="ptuning_v2"),
    }
    parts = {"vit": vit, "jtm": jtm, "dec": dec}
    model = copy.deepcopy(base)
    adapters = adapt(model, miss.PARTS, parts, methods)
    assert f"{count_params(model, parts, adapters).pct:.3f}" == printed


def test_rows_are_those_of_the_published_tables(root: Path) -> None:
    published = root.parent / "shared" / "reference" / "mile_tables.csv"
    if not published.is_file():
        pytest.skip("the published tables are not beside this checkout")
    with published.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["table"] in "1234"]
    assert [
        (int(r["table"]), r["vit"], r["jtm"], r["dec"], int(r["rank"]) if r["rank"] else None, r["params_pct"])
        for r in rows
    ] == ROWS

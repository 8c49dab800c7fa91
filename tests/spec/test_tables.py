"""specs/table1.yaml ... table4.yaml are the MILE paper's tables: rows, order, numbers, setting."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.published import is_comparable
from bench.errors import SpecError
from bench.spec.cell import Cell, expand
from bench.spec.load import SpecSource, read_spec

TABLES = (1, 2, 3, 4)
FIELDS = {"params": "params_pct", "memory": "memory_gb", "open": "opened", "closed": "closed", "global": "global"}
"""Metric -> column of the transcript of the paper's tables."""
BLIP_IMAGES: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "divide_by_255": False,
    "interpolation": "bicubic",
}
RELEASED_IMAGES: dict[str, Any] = {
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "divide_by_255": True,
    "interpolation": "bilinear",
}


@pytest.fixture(params=TABLES, ids=lambda number: f"table{number}")
def source(request: pytest.FixtureRequest, root: Path) -> SpecSource:
    return read_spec(root / f"specs/table{request.param}.yaml")


def cells(source: SpecSource, scale: str) -> list[Cell]:
    return expand(source.resolve(scale))


def test_published_rows_are_the_papers(source: SpecSource, shared_data: Path) -> None:
    transcript = shared_data.parent / "reference" / "mile_tables.csv"
    with transcript.open(encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file) if f"table{row['table']}" == source.name]
    published = source.resolve("paper").spec.published
    assert published is not None
    assert [_as_transcribed(row) for row in published.rows] == [_numbers(row) for row in expected]


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {part: row[part] for part in ("vit", "jtm", "dec")}
    found |= {field: float(row[field]) for field in FIELDS.values()}
    return found | ({"rank": int(row["rank"])} if row["rank"] else {})


def _as_transcribed(row: dict[str, Any]) -> dict[str, Any]:
    return {FIELDS.get(key, key): float(value) if key in FIELDS else value for key, value in row.items()}


@pytest.mark.parametrize("scale", ["paper", "instruction", "demo"])
def test_cells_are_the_published_rows_in_their_order(source: SpecSource, scale: str) -> None:
    published = source.resolve(scale).spec.published
    assert published is not None
    rows = [{key: value for key, value in row.items() if key not in FIELDS} for row in published.rows]
    assert [cell.parts | cell.labels for cell in cells(source, scale)] == rows


def test_the_setting_of_the_released_script(source: SpecSource) -> None:
    cell = cells(source, "paper")[0]
    model, data = cell.model.model_dump(mode="json"), cell.data.model_dump(mode="json")
    assert (model["family"], model["preset"], model["question_max_tokens"]) == ("miss", "base", 35)
    assert model["image"] == {"size": 480} | BLIP_IMAGES, "its default weights are BLIP's"
    assert (data["name"], data["root"], data["language"]) == ("slake", "data/slake", "en")
    train, optimizer, evaluate = cell.train, cell.train.optimizer, cell.evaluate
    assert (train.epochs, train.steps, train.batch_size, train.precision) == (130, None, 20, "fp32")
    assert (train.schedule, train.zero_grad) == ("cosine_per_epoch", "before_backward")
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-5, 0.05)
    assert (evaluate.num_beams, evaluate.max_new_tokens, evaluate.closed) == (3, 9, "yes_no")
    assert (evaluate.length_denominator, evaluate.attend_padding) == ("as_transformers_4", True)
    assert cell.seed == 42


def test_misss_own_checkpoint_brings_its_preprocessing(source: SpecSource) -> None:
    weights = "model.weights={kind: checkpoint, path: weights/miss.pth}"
    own = expand(source.resolve("paper", sets=[weights]))[0]
    assert own.model.model_dump(mode="json")["image"] == {"size": 480} | RELEASED_IMAGES
    as_blip = expand(source.resolve("paper", sets=[weights, f"model.image={BLIP_IMAGES}"]))[0]
    assert as_blip.model.model_dump(mode="json")["image"] == {"size": 480} | BLIP_IMAGES
    assert len({cells(source, "paper")[0].cell_id, own.cell_id, as_blip.cell_id}) == 3


def test_the_setting_of_the_deleted_scripts(source: SpecSource) -> None:
    """Instruction-format data, SLAKE's test questions; all else as in the released script."""
    paper, cell = cells(source, "paper")[0], cells(source, "instruction")[0]
    data = cell.data.model_dump(mode="json")
    assert (data["name"], data["evaluate_on"], data["allow_leaky"]) == ("mile_instruction", "slake", False)
    assert cell.train.optimizer.lr == 2e-5
    assert (cell.train.batch_size, cell.evaluate.batch_size) == (20 if source.name == "table3" else 128, 100)
    changed = {"batch_size": 20, "optimizer": paper.train.optimizer}
    assert cell.train.model_copy(update=changed) == paper.train
    assert cell.evaluate.model_copy(update={"batch_size": 20}) == paper.evaluate
    assert (cell.model, cell.methods) == (paper.model, paper.methods)
    published = source.resolve("instruction").spec.published
    assert published is not None
    assert is_comparable(published, "instruction")
    assert not is_comparable(published, "demo")


def test_only_known_scales_can_be_the_published_setting(tmp_path: Path, source: SpecSource) -> None:
    text = source.path.read_text(encoding="utf-8").replace("scales: [instruction]", "scales: [instructoin]")
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"(?s)published\.scales.*did\s+you\s+mean\s+'instruction'"):
        read_spec(tmp_path / "spec.yaml").resolve("paper")


def test_columns_are_the_papers(source: SpecSource) -> None:
    rank = ["Rank"] if source.name == "table1" else []
    headers = ["ViT", "JTM", "Dec", *rank, "#Params", "Memory", "Opened", "Closed", "Global"]
    assert [column.header for column in source.resolve("paper").spec.columns] == headers


def test_all_demos_are_the_same_setting(root: Path) -> None:
    kept = {"model", "data", "train", "evaluate", "run", "seed"}
    demos = [cells(read_spec(root / f"specs/table{n}.yaml"), "demo")[0].model_dump(include=kept) for n in TABLES]
    assert all(demo == demos[0] for demo in demos)
    assert demos[0]["model"]["preset"] == "tiny"
    assert demos[0]["data"]["name"] == "easy_vqa"
    backbone = {"mean": (0, 0, 0), "std": (5, 5, 5), "divide_by_255": False, "interpolation": "bicubic"}
    assert demos[0]["model"]["image"] == {"size": 48} | backbone
    assert (demos[0]["evaluate"]["length_denominator"], demos[0]["evaluate"]["attend_padding"]) == ("generated", False)

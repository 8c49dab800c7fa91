"""specs/table5.yaml is the MILE paper's Table 5: rows, numbers, setting; and our own counts beside its #Params."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.spec.cell import Cell, expand
from bench.spec.load import SpecSource, read_spec
from bench.training.adapt import adapt
from bench.training.optimizer import make_schedule
from bench.training.params import count_params
from tests import factories

METHODS = {"T": "Full Fine-tuning", "LoRA": "Decoder-LoRA", "Prefix": "Decoder-Prefix", "IA3": "Decoder-IA3"}
METHODS |= {"PTV2": "Decoder-PTV2"}
FIELDS = {"params": "params_pct", "open": "opened", "closed": "closed", "global": "global"}
TRAINABLE = {
    "T": 33_488_336,
    "LoRA": 12_942_592 + 65_536,
    "Prefix": 12_942_592 + 594_688,
    "IA3": 12_942_592 + 8_192,
    "PTV2": 12_942_592 + 20_480,
}


@pytest.fixture
def source(root: Path) -> SpecSource:
    return read_spec(root / "specs/table5.yaml")


def cells(source: SpecSource, scale: str) -> list[Cell]:
    return expand(source.resolve(scale))


def test_published_rows_are_the_papers(source: SpecSource, shared_data: Path) -> None:
    with (shared_data.parent / "reference" / "mile_tables.csv").open(encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file) if row["table"] == "5"]
    published = source.resolve("paper").spec.published
    assert published is not None
    assert [METHODS[row["decoder"]] for row in published.rows] == [row["method"] for row in expected]
    for ours, theirs in zip(published.rows, expected, strict=True):
        assert {FIELDS[key]: float(ours[key]) for key in FIELDS} == {key: float(theirs[key]) for key in FIELDS.values()}


@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_cells_are_the_published_rows_in_their_order(source: SpecSource, scale: str) -> None:
    assert [cell.parts for cell in cells(source, scale)] == [{"encoder": "T", "decoder": name} for name in METHODS]


def test_counts_are_ours_and_the_remark_is_there(source: SpecSource) -> None:
    """Only full fine-tuning agrees with the paper's column."""
    resolved = source.resolve("paper")
    shares = []
    for cell in cells(source, "paper"):
        model = factories.plugin("models", cell.model.family).build(cell.model, texts=[], device="meta")
        adapters = adapt(model, factories.plugin("models", cell.model.family).PARTS, cell.parts, cell.methods)
        params = count_params(model, cell.parts, adapters)
        assert params.trainable == TRAINABLE[cell.parts["decoder"]]
        shares.append(f"{params.pct:.2f}")
    assert shares == ["100.00", "38.77", "39.72", "38.66", "38.69"]
    assert resolved.spec.published is not None
    for text in (resolved.spec.title, resolved.spec.published.source):
        assert "not follow from public sources" in text


def test_the_setting_of_biomedgpts_script(source: SpecSource) -> None:
    cell = cells(source, "paper")[1]
    model, data = cell.model.model_dump(mode="json"), cell.data.model_dump(mode="json")
    assert (model["family"], model["preset"], model["constrain"]) == ("ofa", "tiny", "answers")
    assert (model["question_max_words"], model["label_smoothing"]) == (80, 0.1)
    assert (data["name"], data["root"], data["language"]) == ("slake", "data/slake", "en")
    train, optimizer, evaluate = cell.train, cell.train.optimizer, cell.evaluate
    assert (train.epochs, train.schedule, train.precision) == (100, "polynomial", "fp16_autocast")
    assert train.batch_size * train.gradient_accumulation_steps == 64 * 4 * 4
    assert train.warmup_steps == round(0.04 * make_schedule(train, 4919).steps)
    assert model["constrain_loss"] is True
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 5e-5, 0.01)
    assert evaluate.closed == "answer_type"


def test_the_demo_needs_no_weights(source: SpecSource) -> None:
    demo = cells(source, "demo")[0]
    assert demo.data.name == "easy_vqa"
    assert demo.train.gradient_accumulation_steps == 1
    assert demo.model.model_dump()["weights"] is None

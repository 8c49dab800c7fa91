"""specs/table1.yaml to table5.yaml are the MILE paper's tables: rows, order, numbers, setting; counts of Table 5."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.published import is_comparable
from bench.errors import SpecError
from bench.spec.cell import Cell, expand
from bench.spec.load import SpecSource, read_spec
from bench.spec.sections import Published
from bench.training.adapt import adapt
from bench.training.optimizer import make_schedule
from bench.training.params import count_params
from tests import factories
from tests.conftest import ROOT

FIELDS = {"params": "params_pct", "memory": "memory_gb", "open": "opened", "closed": "closed", "global": "global"}
"""Metric -> column of the transcript of the paper's tables."""
METHODS = {"T": "Full Fine-tuning", "LoRA": "Decoder-LoRA", "Prefix": "Decoder-Prefix", "IA3": "Decoder-IA3"}
METHODS |= {"PTV2": "Decoder-PTV2"}
"""Action -> row of Table 5."""
BLIP_IMAGES: dict[str, Any] = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "divide_by_255": False,
    "interpolation": "bicubic",
}
RELEASED_IMAGES = {"mean": [0, 0, 0], "std": [1, 1, 1], "divide_by_255": True, "interpolation": "bilinear"}


def table(number: int) -> SpecSource:
    return read_spec(ROOT / f"specs/table{number}.yaml")


def cells(source: SpecSource, scale: str, *sets: str) -> list[Cell]:
    return expand(source.resolve(scale, sets))


def published(source: SpecSource, scale: str = "paper") -> Published:
    found = source.resolve(scale).spec.published
    assert found is not None
    return found


@pytest.fixture(params=(1, 2, 3, 4), ids=lambda number: f"table{number}")
def source(request: pytest.FixtureRequest) -> SpecSource:
    return table(request.param)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_published_rows_are_the_papers(number: int, shared_data: Path) -> None:
    with (shared_data.parent / "reference" / "mile_tables.csv").open(encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file) if row["table"] == str(number)]
    rows = published(table(number)).rows
    for ours, theirs in zip(rows, expected, strict=True):
        values = {FIELDS[key]: float(value) for key, value in ours.items() if key in FIELDS}
        assert values == {key: float(theirs[key]) for key in values}
        assert values.keys() | ({"memory_gb"} if number == 5 else set()) == set(FIELDS.values())
        if number == 5:
            assert METHODS[ours["decoder"]] == theirs["method"]
        else:
            assert {key: str(ours.get(key, "")) for key in ("vit", "jtm", "dec", "rank")}.items() <= theirs.items()


@pytest.mark.parametrize("scale", ["paper", "instruction", "demo"])
def test_cells_are_the_published_rows_in_their_order(source: SpecSource, scale: str) -> None:
    rows = [{key: value for key, value in row.items() if key not in FIELDS} for row in published(source, scale).rows]
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
    own, as_blip = (cells(source, "paper", weights, *more)[0] for more in ([], [f"model.image={BLIP_IMAGES}"]))
    assert own.model.model_dump(mode="json")["image"] == {"size": 480} | RELEASED_IMAGES
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
    known = published(source, "instruction")
    assert (is_comparable(known, "instruction"), is_comparable(known, "demo")) == (True, False)


def test_only_known_scales_can_be_the_published_setting(tmp_path: Path) -> None:
    text = table(1).path.read_text(encoding="utf-8").replace("scales: [instruction]", "scales: [instructoin]")
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"(?s)published\.scales.*did\s+you\s+mean\s+'instruction'"):
        read_spec(tmp_path / "spec.yaml").resolve("paper")


def test_columns_are_the_papers(source: SpecSource) -> None:
    rank = ["Rank"] if source.name == "table1" else []
    headers = ["ViT", "JTM", "Dec", *rank, "#Params", "Memory", "Opened", "Closed", "Global"]
    assert [column.header for column in source.resolve("paper").spec.columns] == headers


def test_all_demos_are_the_same_setting() -> None:
    kept = {"model", "data", "train", "evaluate", "run", "seed"}
    demos = [cells(table(number), "demo")[0].model_dump(include=kept) for number in (1, 2, 3, 4)]
    assert all(demo == demos[0] for demo in demos)
    assert (demos[0]["model"]["preset"], demos[0]["data"]["name"]) == ("tiny", "easy_vqa")
    backbone = {"mean": (0, 0, 0), "std": (5, 5, 5), "divide_by_255": False, "interpolation": "bicubic"}
    assert demos[0]["model"]["image"] == {"size": 48} | backbone
    assert (demos[0]["evaluate"]["length_denominator"], demos[0]["evaluate"]["attend_padding"]) == ("generated", False)


# --- Table 5: BiomedGPT ------------------------------------------------------------------------------------------


def test_table_5_compares_what_the_decoder_trains() -> None:
    for scale in ("paper", "demo"):
        expected = [{"encoder": "T", "decoder": name} for name in METHODS]
        assert [cell.parts for cell in cells(table(5), scale)] == expected
    demo = cells(table(5), "demo")[0]
    assert (demo.data.name, demo.train.gradient_accumulation_steps) == ("easy_vqa", 1)
    assert demo.model.model_dump()["weights"] is None


def test_counts_of_table_5_are_ours_and_the_remark_is_there() -> None:
    """Only full fine-tuning agrees with the paper's column."""
    encoder = 12_942_592
    trainable = {"T": 33_488_336, "LoRA": encoder + 65_536, "Prefix": encoder + 594_688}
    trainable |= {"IA3": encoder + 8_192, "PTV2": encoder + 20_480}
    shares = []
    for cell in cells(table(5), "paper"):
        model = factories.plugin("models", cell.model.family).build(cell.model, texts=[], device="meta")
        params = count_params(model, cell.parts, adapt(model, model.part_facts, cell.parts, cell.methods))
        assert params.trainable == trainable[cell.parts["decoder"]]
        shares.append(f"{params.pct:.2f}")
    assert shares == ["100.00", "38.77", "39.72", "38.66", "38.69"]
    for text in (table(5).resolve("paper").spec.title, published(table(5)).source):
        assert "not follow from public sources" in text


def test_the_setting_of_biomedgpts_script() -> None:
    cell = cells(table(5), "paper")[1]
    model, data = cell.model.model_dump(mode="json"), cell.data.model_dump(mode="json")
    assert (model["family"], model["preset"], model["constrain"]) == ("ofa", "tiny", "answers")
    assert (model["question_max_words"], model["label_smoothing"], model["constrain_loss"]) == (80, 0.1, True)
    assert (data["name"], data["root"], data["language"]) == ("slake", "data/slake", "en")
    train, optimizer = cell.train, cell.train.optimizer
    assert (train.epochs, train.schedule, train.precision) == (100, "polynomial", "fp16_autocast")
    assert train.batch_size * train.gradient_accumulation_steps == 64 * 4 * 4
    assert train.warmup_steps == round(0.04 * make_schedule(train, 4919).steps)
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 5e-5, 0.01)
    assert cell.evaluate.closed == "answer_type"

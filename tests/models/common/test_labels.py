"""Rows of a head and classes of the data belong together by what both are called, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import SpecError, WeightsError
from bench.models import hf
from bench.models.common.labels import match
from bench.plugins.contracts import TaskFacts
from tests.models.hf import models as tiny


def task(*labels: str, spec: bool = False) -> TaskFacts:
    return TaskFacts(
        name="label", inputs=("text",), output="label", labels=labels, labels_from="spec" if spec else "data"
    )


@pytest.mark.parametrize(
    ("rows", "labels", "order"),
    [
        (("POSITIVE", "NEGATIVE"), ("negative", "positive"), (1, 0)),
        (("POSITIVE", "NEGATIVE"), ("neg", "pos"), (1, 0)),
        (("contradiction", "neutral", "entailment"), ("contradiction", "entailment", "neutral"), (0, 2, 1)),
        (("NOT_ENTAILMENT", "ENTAILMENT"), ("entailment", "not entailment"), (1, 0)),
        (("NotSpam", "Spam"), ("not-spam", "spam"), (0, 1)),
        (("LABEL_SPAM", "LABEL_HAM"), ("ham", "spam"), (1, 0)),
        (("tench, Tinca tinca", "goldfish"), ("goldfish", "tench"), (1, 0)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1", "2"), (0, 1, 2)),
        (
            tuple(f"LABEL_{i}" for i in range(11)),
            tuple(sorted(map(str, range(11)))),
            (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9),
        ),
        (("1 star", "2 stars", "3 stars"), ("1", "2", "3"), (0, 1, 2)),
        (("3", "1", "2"), ("class 1", "class 2", "class 3"), (1, 2, 0)),
        (("good", "bad", "ugly"), ("bad", "good"), (1, 0)),
        (("ＣＴ", "Café"), ("Cafe\u0301", "CT"), (1, 0)),
        (("A+", "A-"), ("A-", "A+"), (1, 0)),
    ],
)
def test_rows_and_classes_of_one_name(rows: tuple[str, ...], labels: tuple[str, ...], order: tuple[int, ...]) -> None:
    assert match(rows, task(*labels)).order == order


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (
            ("entailment", "neutral", "contradiction"),
            ("0", "1", "2"),
        ),  # two public MNLI heads have them in other orders
        (("LABEL_0", "LABEL_1"), ("neg", "pos")),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("1", "2", "3")),
        (("LABEL_0", "LABEL_1"), ("-1", "1")),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("0", "1")),
        (("good", "bad"), ("ham", "spam")),
        (("A+", "A-"), ("A +", "A -")),
        (("possible", "positive"), ("pos", "neg")),
        (("crane", "crane"), ("crane", "bird")),
        (("B", "M"), ("benign", "malignant")),
    ],
)
def test_names_that_say_nothing_of_each_other(rows: tuple[str, ...], labels: tuple[str, ...]) -> None:
    found = match(rows, task(*labels))
    assert found.order is None
    assert "task.labels" in found.problem


def test_the_spec_names_the_rows() -> None:
    assert match(("LABEL_0", "LABEL_1"), task("pos", "neg", spec=True)).order == (0, 1)
    assert match(("LABEL_0", "LABEL_1"), task("1", "0", spec=True)).order == (0, 1)
    assert match(("good", "bad"), task("spam", "ham", spec=True)).order == (0, 1)
    assert match(("NEGATIVE", "POSITIVE"), task("pos", "neg", spec=True)).order == (1, 0), "the head's own names win"
    found = match(("negative", "rest"), task("positive", "negative", spec=True))
    assert "'negative' in place 1, but the head of the weights has it in row 0" in found.problem


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A head of three rows that says POSITIVE, NEUTRAL, NEGATIVE."""
    model = tiny.make("bert", task("POSITIVE", "NEUTRAL", "NEGATIVE"))
    with torch.no_grad():
        model.base.classifier.bias.copy_(torch.tensor([10.0, 0.0, -10.0]))
    hf.save(model, tmp_path)
    return tmp_path


def build(folder: Path, facts: TaskFacts) -> Any:
    return hf.build(hf.Settings(family="hf", path=folder), texts=[], device="cpu", task=facts)


def changed(folder: Path, **fields: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    content |= fields
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def scores(folder: Path, facts: TaskFacts) -> list[float]:
    model = build(folder, facts)
    (row,) = model.logits(model.collate([], ["bad"], [])).tolist()
    return list(row)


def test_a_fine_tuned_head_goes_on(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neg, neu, pos = scores(saved, task("neg", "neutral", "pos"))
    assert neg < neu < pos
    assert "POSITIVE = pos" in capsys.readouterr().out
    neg, pos = scores(saved, task("negative", "positive"))
    assert neg < pos, "the data lack a class of the head's"
    changed(saved, id2label=None, label2id={"POSITIVE": 0, "NEUTRAL": 1, "NEGATIVE": 2})
    assert scores(saved, task("negative", "neutral", "positive"))[0] == pytest.approx(neg, abs=1e-4)


def test_a_head_of_other_names_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"rows POSITIVE, NEUTRAL, NEGATIVE, and .* classes 0, 1, 2.*task\.labels"):
        build(saved, task("0", "1", "2"))
    assert scores(saved, task("0", "1", "2", spec=True))[0] > 5
    changed(saved, id2label=None, label2id=None, num_labels=3)
    with pytest.raises(WeightsError, match=r"names none of its rows.*task\.labels"):
        build(saved, task("negative", "neutral", "positive"))
    assert scores(saved, task("0", "1", "2"))[0] > 5


def test_a_configuration_that_says_two_things_is_refused(saved: Path) -> None:
    changed(saved, label2id={"POSITIVE": 2, "NEUTRAL": 1, "NEGATIVE": 0})
    with pytest.raises(SpecError, match=r"'POSITIVE' as row 0 .* as row 2 in label2id"):
        build(saved, task("negative", "neutral", "positive"))
    changed(saved, label2id={"POSITIVE": "first"})
    with pytest.raises(SpecError, match="must give each row of the head a name"):
        build(saved, task("negative", "neutral", "positive"))


def test_weights_without_a_head_get_a_new_one(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(saved / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    save_file(kept, saved / "model.safetensors", metadata={"format": "pt"})
    model = build(saved, task("a", "b", "c"))
    assert "head: new, with a row for each of the 3 classes" in capsys.readouterr().out
    assert model.base.config.id2label == {0: "a", 1: "b", 2: "c"}

"""specs/examples: specs that a newcomer can read and run without a download, with data that are what they claim."""

from __future__ import annotations

import csv
import json
import runpy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.methods.common import library
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.worker import run
from tests.conftest import ROOT
from tests.factories import load_cells

EXAMPLES = {
    "image_classification": ("accuracy", "macro_f1"),
    "text_classification": ("accuracy", "macro_f1", "mcc"),
    "text_generation": ("exact_match", "token_f1"),
}
"""Example, named as its task, and the metrics that its table must show."""
DATA = ROOT / "specs/examples/data"


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def cells(name: str, *changes: str) -> list[Cell]:
    return load_cells(ROOT / f"specs/examples/{name}.yaml", "default", sets=changes)[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_on_a_screen_and_fetches_nothing(name: str) -> None:
    text = (ROOT / f"specs/examples/{name}.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert max(map(len, text.splitlines())) <= 120
    assert f"python run_bench.py specs/examples/{name}.yaml" in text
    found = cells(name)
    assert {cell.task.name for cell in found} == {name}
    actions = [set(cell.parts.values()) for cell in found]
    assert {"T"} in actions
    assert {"F", "T"} in actions
    assert any("LoRA" in action for action in actions)
    for cell in found:
        assert registry.load("models", cell.model.family).weights_digest(cell.model) is None
        assert len(registry.load("datasets", cell.data.name).digest(cell.data)) == 64


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_short_run_of_a_cell(tmp_path: Path, name: str) -> None:
    changes = ("train.epochs=1", "data.train_limit=40", "data.test_limit=20", "run.device=cpu", "run.threads=1")
    (cell,) = [cell for cell in cells(name, *changes) if cell.label.startswith("F-LoRA")]
    record = run.run_cell(cell, tmp_path)
    assert (record.status, record.error) == (Status.OK, None)
    assert record.params is not None
    assert 0 < record.params.trainable < record.params.total
    assert tuple(record.scores or {}) == EXAMPLES[name]
    assert tuple(record.baselines or {}) == ("majority",)
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [type(json.loads(line)["correct"]) for line in lines] == [bool] * 20


# --- the samples -------------------------------------------------------------------------------------------------


def test_the_samples_are_small_and_made_by_the_script_beside_them(tmp_path: Path) -> None:
    made = runpy.run_path(str(DATA / "make.py"))
    made["main"].__globals__["FOLDER"] = tmp_path
    made["main"]()
    files = {path.name: path.read_bytes() for path in DATA.iterdir() if path.suffix in (".csv", ".jsonl")}
    assert set(files) == {"reviews.csv", "phrases_train.jsonl", "phrases_test.jsonl"}
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sum(map(len, files.values())) < 100_000


@pytest.fixture(scope="module")
def reviews() -> dict[str, list[dict[str, str]]]:
    with (DATA / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {split: [row for row in rows if row["split"] == split] for split in ("train", "test")}


def test_reviews_say_in_testing_what_training_never_says(reviews: dict[str, list[dict[str, str]]]) -> None:
    maker = runpy.run_path(str(DATA / "make.py"))
    words = {word for group in maker["ADJECTIVES"].values() for word in group}

    def pairs(split: str) -> set[tuple[str, str]]:
        """Thing and adjective of the sentences of one clause."""
        tokens = [row["review"].lower().rstrip(".").split() for row in reviews[split] if "," not in row["review"]]
        return {(t[1], word) for t in tokens if len(t) < 7 and t[0] == "the" for word in words & set(t)}

    assert {row["review"] for row in reviews["train"]}.isdisjoint(row["review"] for row in reviews["test"])
    assert len(pairs("test")) > 20
    assert pairs("train").isdisjoint(pairs("test"))
    for split, count in maker["REVIEWS_PER_CLASS"].items():
        found = [row["opinion"] for row in reviews[split]]
        assert {label: found.count(label) for label in maker["CLASSES"]} == dict.fromkeys(maker["CLASSES"], count)


def test_reviews_are_more_than_their_words(reviews: dict[str, list[dict[str, str]]]) -> None:
    """A linear model of which words occur stays far below what the example's model reaches, and above chance."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer().fit([row["review"] for row in reviews["train"]])
    inputs = {split: words.transform([row["review"] for row in rows]) for split, rows in reviews.items()}
    labels = {split: [row["opinion"] for row in rows] for split, rows in reviews.items()}
    model = LogisticRegression(max_iter=2000, C=10).fit(inputs["train"], labels["train"])
    assert 0.4 < model.score(inputs["test"], labels["test"]) < 0.65


def test_phrases_join_in_testing_what_training_never_joins() -> None:
    files = {split: (DATA / f"phrases_{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "test")}
    train, test = ([json.loads(line) for line in text.splitlines()] for text in files.values())
    assert (len(train), len(test), len({row["prompt"] for row in (*train, *test)})) == (324, 108, 432)
    pairs = [{row["prompt"].partition(": ")[2] for row in rows} for rows in (train, test)]
    assert pairs[0].isdisjoint(pairs[1])
    for field in ("prompt", "answer"):
        train_words, test_words = ({word for row in rows for word in row[field].split()} for rows in (train, test))
        assert test_words <= train_words


# --- all_methods.yaml: every method of the peft that it was written for, and of our own ----------------------------

LEFT_OUT = {"XLORA": "mixes adapters that were trained before"}
SAME_AS = {"lora": "LORA", "ia3": "IA3", "prefix": "PREFIX_TUNING", "ptuning_v2": "PREFIX_TUNING"}
SAME_AS |= {"peft_config": "LORA"}
"""Our own names of methods of the library."""


def named(field: str) -> set[str]:
    methods = [method for cell in cells("all_methods") for method in cell.methods.values()]
    return {str(getattr(method, field)) for method in methods if getattr(method, field, "")}


def test_every_method_is_there_or_named_as_left_out() -> None:
    """A type that a new release brings belongs into the file, or with a reason into its head and ``LEFT_OUT``."""
    there, known = named("peft_type"), set(library.types())
    assert sorted(known - there - LEFT_OUT.keys()) == []
    assert not there & LEFT_OUT.keys()
    head = (ROOT / "specs/examples/all_methods.yaml").read_text().partition("name: ")[0]
    assert [name for name in LEFT_OUT if name not in head] == []
    if version("peft") == "0.21.2":  # the release that the file was written for
        assert there <= known
    assert set(registry.names("methods")) - named("type") <= SAME_AS.keys()
    assert set(SAME_AS.values()) <= there


def test_both_models_have_all_that_fits_them_and_a_cell_takes_seconds() -> None:
    found: dict[Any, set[str]] = {"llama": set(), "vit": set()}
    for cell in cells("all_methods"):
        found[cell.labels["variant"]].add(cell.parts["model"])
        assert cell.train.steps is not None
        assert cell.train.steps <= 100
    texts_alone = {"head", "SHADOW", "ADAPTION_PROMPT", "TRAINABLE_TOKENS"}
    texts_alone |= {name for name in library.types() if library.method(name).takes_prompts}
    assert found["llama"] - found["vit"] == texts_alone & found["llama"]
    assert found["vit"] - found["llama"] == {"F"}
    assert len(cells("all_methods")) <= 100

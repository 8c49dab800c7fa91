"""specs/examples: each is a spec that a newcomer can read, and run without a download; its data are what they claim."""

from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.records.record import Status
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec

EXAMPLES = {
    "image_classification": ("accuracy", "macro_f1"),
    "text_classification": ("accuracy", "macro_f1", "mcc"),
    "text_generation": ("exact_match", "token_f1"),
}
"""Example, named as its task, and the metrics that its table must show."""
SCREEN = 70
"""Lines."""


def cells(root: Path, name: str, *changes: str) -> list[Cell]:
    return expand(read_spec(root / f"specs/examples/{name}.yaml").resolve("default", changes))


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_fits_on_a_screen_and_compares_freeze_patterns_with_methods(root: Path, name: str) -> None:
    text = (root / f"specs/examples/{name}.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= SCREEN
    assert max(map(len, text.splitlines())) <= 120
    assert f"python run_bench.py specs/examples/{name}.yaml" in text
    found = cells(root, name)
    assert {cell.task.name for cell in found} == {name}
    actions = [set(cell.parts.values()) for cell in found]
    assert {"T"} in actions
    assert {"F", "T"} in actions
    assert any("LoRA" in action for action in actions)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_has_to_be_fetched(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for cell in cells(root, name):
        assert registry.load("models", cell.model.family).weights_digest(cell.model) is None
        assert len(registry.load("datasets", cell.data.name).digest(cell.data)) == 64


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_short_run_of_a_cell(root: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.worker.run import run_cell

    monkeypatch.chdir(root)
    changes = ("train.epochs=1", "data.train_limit=40", "data.test_limit=20", "run.device=cpu", "run.threads=1")
    (cell,) = [cell for cell in cells(root, name, *changes) if cell.label.startswith("F-LoRA")]
    record = run_cell(cell, tmp_path)
    assert (record.status, record.error) == (Status.OK, None)
    assert record.params is not None
    assert 0 < record.params.trainable < record.params.total
    assert tuple(record.scores or {}) == EXAMPLES[name]
    assert tuple(record.baselines or {}) == ("majority",)
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    assert all(isinstance(json.loads(line)["correct"], bool) for line in lines)


@pytest.fixture(scope="module")
def maker(root: Path) -> dict[str, Any]:
    """The script that writes the samples."""
    return runpy.run_path(str(root / "specs/examples/data/make.py"))


@pytest.fixture(scope="module")
def reviews(root: Path) -> dict[str, list[dict[str, str]]]:
    with (root / "specs/examples/data/reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {split: [row for row in rows if row["split"] == split] for split in ("train", "test")}


@pytest.fixture(scope="module")
def phrases(root: Path) -> dict[str, list[dict[str, str]]]:
    folder = root / "specs/examples/data"
    texts = {split: (folder / f"phrases_{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "test")}
    return {split: [json.loads(line) for line in text.splitlines()] for split, text in texts.items()}


def test_the_samples_are_small_and_made_by_the_script_beside_them(root: Path, tmp_path: Path) -> None:
    folder = root / "specs/examples/data"
    made = runpy.run_path(str(folder / "make.py"))
    made["main"].__globals__["FOLDER"] = tmp_path
    made["main"]()
    names = {path.name for path in folder.iterdir() if path.suffix in (".csv", ".jsonl")}
    assert (
        names
        == {path.name for path in tmp_path.iterdir()}
        == {"reviews.csv"} | {*("phrases_train.jsonl", "phrases_test.jsonl")}
    )
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert sum((folder / name).stat().st_size for name in names) < 100_000


def test_reviews_say_in_testing_what_training_never_says(reviews: Any, maker: dict[str, Any]) -> None:
    words = [word for group in maker["ADJECTIVES"].values() for word in group]

    def said(split: str) -> set[tuple[str, str]]:
        """Thing and adjective of plain sentences; of others, what stands in one clause cannot be told so easily."""
        tokens = [row["review"].lower().rstrip(".").split() for row in reviews[split] if "," not in row["review"]]
        return {(t[1], word) for t in tokens if len(t) < 7 for word in words if word in t and t[0] == "the"}

    assert {row["review"] for row in reviews["train"]}.isdisjoint(row["review"] for row in reviews["test"])
    assert len(said("test")) > 20
    assert said("train").isdisjoint(said("test"))
    for split, count in maker["REVIEWS_PER_CLASS"].items():
        found = [row["opinion"] for row in reviews[split]]
        assert {label: found.count(label) for label in maker["CLASSES"]} == dict.fromkeys(maker["CLASSES"], count)


def test_reviews_are_more_than_their_words(reviews: Any) -> None:
    """A linear model of which words occur stays far below what the example's model reaches, and above chance."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer().fit([row["review"] for row in reviews["train"]])
    inputs, labels = {}, {}
    for split, rows in reviews.items():
        inputs[split] = words.transform([row["review"] for row in rows])
        labels[split] = [row["opinion"] for row in rows]
    model = LogisticRegression(max_iter=2000, C=10).fit(inputs["train"], labels["train"])
    assert 0.4 < model.score(inputs["test"], labels["test"]) < 0.65


def test_phrases_join_in_testing_what_training_never_joins(phrases: Any) -> None:
    def pairs(split: str) -> set[str]:
        return {row["prompt"].partition(": ")[2] for row in phrases[split]}

    assert (len(phrases["train"]), len(phrases["test"])) == (324, 108)
    assert pairs("train").isdisjoint(pairs("test"))
    for field in ("prompt", "answer"):
        known = {word for row in phrases["train"] for word in row[field].split()}
        assert {word for row in phrases["test"] for word in row[field].split()} <= known
    assert len({row["prompt"] for split in phrases.values() for row in split}) == 432

"""Scores of single examples: which lines a metric counts, and which files are not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.analysis.predictions import ExampleScores
from bench.records.record import CellRecord
from bench.records.scores import Score
from tests.factories import make_record
from tests.report.answers import answered
from tests.report.conftest import Case

RIGHT = [True, False, True, True, False]


@pytest.fixture
def record(demo: Case, tmp_path: Path) -> CellRecord:
    return answered(tmp_path, demo.cells[0], RIGHT, closed=2)


def test_a_metric_counts_its_own_questions(record: CellRecord, tmp_path: Path) -> None:
    examples = ExampleScores(tmp_path)
    assert examples.of(record, "open") == {"q0": 1, "q1": 0, "q2": 1}
    assert examples.of(record, "closed") == {"q3": 1, "q4": 0}
    assert examples.of(record, "global") == dict(zip(("q0", "q1", "q2", "q3", "q4"), RIGHT, strict=True))
    assert examples.of(record, "score") == examples.of(record, "over_prior") == examples.of(record, "global")
    assert examples.of(record, "memory") is None


def test_a_mean_of_shares(demo: Case, tmp_path: Path) -> None:
    lines = [{"question_id": str(i), "correct": f1 == 1, "token_f1": f1} for i, f1 in enumerate((1.0, 0.5, 0.0))]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scores = {"exact_match": Score.share(1, 3), "token_f1": Score(value=0.5, n=3)}
    record = make_record(demo.cells[0], accuracy=None, task="text_generation", scores=scores, predictions="p.jsonl")
    assert ExampleScores(tmp_path).of(record, "token_f1") == {"0": 1.0, "1": 0.5, "2": 0.0}
    assert ExampleScores(tmp_path).of(record, "exact_match") == {"0": 1.0, "1": 0.0, "2": 0.0}


def test_a_score_that_is_no_mean_is_one_of_influences(demo: Case, tmp_path: Path) -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")]
    lines = [
        {"question_id": str(i), "correct": gold == told, "answer": gold, "prediction": told}
        for i, (gold, told) in enumerate(pairs)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    f1 = (2 / 3 + 4 / 5) / 2
    scores = {"accuracy": Score.share(3, 4), "macro_f1": Score(value=f1, n=4)}
    record = make_record(
        demo.cells[0], accuracy=None, task="image_classification", scores=scores, predictions="p.jsonl"
    )
    assert ExampleScores(tmp_path).of(record, "accuracy") == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0}
    found = ExampleScores(tmp_path).of(record, "macro_f1")
    assert found is not None
    assert sum(found.values()) / 4 == pytest.approx(f1)
    assert found["0"] > found["2"] == found["3"] > found["1"], "the rarer class counts more"
    stale = record.model_copy(update={"scores": scores | {"macro_f1": Score(value=0.9, n=4)}})
    assert ExampleScores(tmp_path).of(stale, "macro_f1") is None


def test_the_same_examples_are_known_as_the_same(demo: Case, tmp_path: Path) -> None:
    first, second = (answered(tmp_path, cell, RIGHT) for cell in demo.cells[:2])
    path = tmp_path / str(second.predictions)
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    examples = ExampleScores(tmp_path)
    one, other = examples.sample(first, "global"), examples.sample(second, "global")
    assert one is not None
    assert other is not None
    assert one.ids is other.ids
    assert one.values.tolist() == other.values.tolist()


@pytest.mark.parametrize(
    "content",
    ["", "nonsense", '{"question_id": "q0"', "[1]\n", '{"question_id": "q0", "correct": true}\n', "[" * 100_000],
)
def test_a_file_that_does_not_add_up_to_the_score_is_not_believed(
    record: CellRecord, tmp_path: Path, content: str
) -> None:
    (tmp_path / str(record.predictions)).write_text(content)
    assert ExampleScores(tmp_path).of(record, "global") is None


def test_another_run_s_answers_are_not_believed(record: CellRecord, tmp_path: Path) -> None:
    path = tmp_path / str(record.predictions)
    path.write_text(path.read_text().replace("false", "true"))
    assert ExampleScores(tmp_path).of(record, "global") is None


def test_no_file_no_folder_no_outcomes(record: CellRecord, tmp_path: Path) -> None:
    assert ExampleScores(None).of(record, "global") is None
    assert ExampleScores(tmp_path / "elsewhere").of(record, "global") is None
    assert ExampleScores(tmp_path).of(record.model_copy(update={"predictions": None}), "global") is None


@pytest.mark.parametrize("outside", ["../p.jsonl", "/etc/passwd"])
def test_files_outside_the_folder_are_not_read(record: CellRecord, tmp_path: Path, outside: str) -> None:
    (tmp_path / "p.jsonl").write_text((tmp_path / str(record.predictions)).read_text())
    (tmp_path / "inside").mkdir()
    moved = record.model_copy(update={"predictions": outside})
    assert ExampleScores(tmp_path / "inside").of(moved, "global") is None

"""Scores of single examples: which lines a metric counts, and which files are not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def scores_of(folder: Path | None, record: CellRecord, metric: str) -> dict[str, float] | None:
    sample = ExampleScores(folder).sample(record, metric)
    return None if sample is None else dict(zip(sample.ids, sample.values.tolist(), strict=True))


def written(case: Case, folder: Path, lines: list[dict[str, Any]], task: str, scores: dict[str, Score]) -> CellRecord:
    (folder / "p.jsonl").write_text("\n".join(json.dumps({"question_id": str(i)} | x) for i, x in enumerate(lines)))
    return make_record(case.cells[0], accuracy=None, task=task, scores=scores, predictions="p.jsonl")


def test_a_metric_counts_its_own_questions(record: CellRecord, tmp_path: Path) -> None:
    every = dict(zip(("q0", "q1", "q2", "q3", "q4"), RIGHT, strict=True))
    expected = {
        "open": {"q0": 1, "q1": 0, "q2": 1},
        "closed": {"q3": 1, "q4": 0},
        "memory": None,
        **dict.fromkeys(("global", "score", "over_prior"), every),
    }
    assert {metric: scores_of(tmp_path, record, metric) for metric in expected} == expected


def test_a_mean_of_shares(demo: Case, tmp_path: Path) -> None:
    scores = {"exact_match": Score.share(1, 3), "token_f1": Score(value=0.5, n=3)}
    lines = [{"correct": f1 == 1, "token_f1": f1} for f1 in (1.0, 0.5, 0.0)]
    record = written(demo, tmp_path, lines, "text_generation", scores)
    assert scores_of(tmp_path, record, "token_f1") == {"0": 1.0, "1": 0.5, "2": 0.0}
    assert scores_of(tmp_path, record, "exact_match") == {"0": 1.0, "1": 0.0, "2": 0.0}


def test_a_score_that_is_no_mean_is_one_of_influences(demo: Case, tmp_path: Path) -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")]
    lines = [{"correct": answer == told, "answer": answer, "prediction": told} for answer, told in pairs]
    f1 = (2 / 3 + 4 / 5) / 2
    scores = {"accuracy": Score.share(3, 4), "macro_f1": Score(value=f1, n=4)}
    record = written(demo, tmp_path, lines, "image_classification", scores)
    assert scores_of(tmp_path, record, "accuracy") == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0}
    found = scores_of(tmp_path, record, "macro_f1")
    assert found is not None
    assert sum(found.values()) / 4 == pytest.approx(f1)
    assert found["0"] > found["2"] == found["3"] > found["1"], "the rarer class counts more"
    stale = record.model_copy(update={"scores": scores | {"macro_f1": Score(value=0.9, n=4)}})
    assert scores_of(tmp_path, stale, "macro_f1") is None


def test_the_same_examples_in_another_order_share_their_ids(demo: Case, tmp_path: Path) -> None:
    first, second = (answered(tmp_path, cell, RIGHT, closed=2) for cell in demo.cells[:2])
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
    ["", "nonsense", '{"question_id": "q0"', "[1]\n", '{"question_id": "q0", "correct": true}\n', "[" * 100_000, None],
)
def test_a_file_that_does_not_add_up_to_the_score_is_not_believed(
    record: CellRecord, tmp_path: Path, content: str | None
) -> None:
    """The last is another run's, with every answer right."""
    path = tmp_path / str(record.predictions)
    path.write_text(path.read_text().replace("false", "true") if content is None else content)
    assert scores_of(tmp_path, record, "global") is None


@pytest.mark.parametrize("predictions", [None, "elsewhere.jsonl", "../p.jsonl", "/etc/passwd"])
def test_without_a_file_inside_the_folder_nothing_is_known(
    record: CellRecord, tmp_path: Path, predictions: str | None
) -> None:
    (tmp_path / "p.jsonl").write_text((tmp_path / str(record.predictions)).read_text())
    (tmp_path / "inside").mkdir()
    moved = record.model_copy(update={"predictions": predictions})
    assert scores_of(tmp_path / "inside", moved, "global") is None
    assert scores_of(None, record, "global") is None

"""Records of the demo of Table 1 with the predictions behind their scores, in results folders as a run leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.records.scores import Accuracy, Score, Share
from bench.records.store import ResultsFile
from bench.spec.cell import Cell
from tests.factories import load_cells, make_record
from tests.report.conftest import _table1, demo, paper

__all__ = ["_table1", "demo", "paper"]

QUESTIONS = 200
"""The first half open, the second closed."""
Right = Callable[[int, int], bool]
"""Whether the cell (place, from 0) answers the question (place, from 0)."""


def usual(cell: int, question: int) -> bool:
    """Half of each kind of questions."""
    return (cell + question) % 2 == 0


class Folder:
    """A results folder that tests fill."""

    def __init__(self, path: Path, cells: Sequence[Cell]) -> None:
        self.path, self.cells = path, cells

    def put(self, place: int, right: Right = usual, *, predictions: bool = True, **changes: Any) -> None:
        """One record, and its file of predictions."""
        cell = self.cells[place]
        answers = [right(place, question) for question in range(QUESTIONS)]
        where = f"{cell.scale}/{cell.cell_id}/predictions.jsonl"
        values: dict[str, Any] = {
            "settings": cell.model_dump(mode="json"),
            "predictions": where,
            "scores": _scores(answers),
            "accuracy": _accuracy(answers),
            "environment": {"device": "NVIDIA A100", "cpu": "EPYC"},
            "data_digest": "d" * 64,
            "adapter_bytes": 4_000 * (place + 1),
        } | changes
        folder = self.path / cell.spec
        ResultsFile(folder / f"{cell.scale}.jsonl").append(make_record(cell, place, **values))
        if predictions:
            (folder / where).parent.mkdir(parents=True, exist_ok=True)
            (folder / where).write_text("".join(map(_line, range(QUESTIONS), answers)), encoding="utf-8")

    def fill(self, right: Right = usual, *, cells: int = 3, **changes: Any) -> Folder:
        for place in range(cells):
            self.put(place, right, **changes)
        return self

    def __str__(self) -> str:
        return str(self.path)


def _scores(answers: Sequence[bool]) -> dict[str, Score]:
    half = QUESTIONS // 2
    shares = {"open": answers[:half], "closed": answers[half:], "global": answers}
    return {name: Score.share(sum(some), len(some)) for name, some in shares.items()}


def _accuracy(answers: Sequence[bool]) -> Accuracy:
    shares = {name: Share(correct=s.correct or 0, n=s.n) for name, s in _scores(answers).items()}
    return Accuracy(open=shares["open"], closed=shares["closed"], overall=shares["global"])


def _line(question: int, correct: bool) -> str:
    kind = "open" if question < QUESTIONS // 2 else "closed"
    return json.dumps({"question_id": f"q{question}", "answer_type": kind, "correct": correct}) + "\n"


@pytest.fixture(scope="session")
def cells(root: Path) -> list[Cell]:
    return load_cells(root / "specs" / "table1.yaml", "demo")[1]


@pytest.fixture(scope="session")
def seeded(root: Path) -> list[Cell]:
    """Three seeds of each cell; the first three cells are the seeds of the first row."""
    return load_cells(root / "specs" / "table1.yaml", "demo", seeds=[1, 2, 3])[1]


@pytest.fixture
def a(tmp_path: Path, cells: list[Cell]) -> Folder:
    return Folder(tmp_path / "a", cells)


@pytest.fixture
def b(tmp_path: Path, cells: list[Cell]) -> Folder:
    return Folder(tmp_path / "b", cells)

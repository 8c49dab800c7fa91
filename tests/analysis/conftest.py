"""Records of the demo of Table 1 with the predictions behind their scores, in results folders as a run leaves them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.records.scores import Score
from bench.records.store import ResultsFile
from bench.spec.cell import Cell
from tests.factories import accuracy, load_cells, make_record
from tests.report.conftest import _table1, demo, paper

__all__ = ["_table1", "demo", "paper"]

QUESTIONS, OPEN = 200, 100
"""Questions of each cell; the first hundred are open, the others closed."""
Right = Callable[[int, int], bool]
"""Whether the cell answers the question; both by index."""


def half(cell: int, question: int) -> bool:
    """Half of the questions of each kind."""
    return (cell + question) % 2 == 0


def near(expected: float, within: float | None = None) -> Any:
    """``pytest.approx``, comparable within tuples."""
    return pytest.approx(expected, abs=within)


class Folder:
    """A results folder that tests fill."""

    def __init__(self, path: Path, cells: Sequence[Cell]) -> None:
        self.path, self.cells = path, cells

    def put(self, index: int, right: Right = half, **changes: Any) -> None:
        """One record, and its file of predictions."""
        cell = self.cells[index]
        answers = [right(index, question) for question in range(QUESTIONS)]
        where = f"{cell.scale}/{cell.cell_id}/predictions.jsonl"
        kinds = {"open": answers[:OPEN], "closed": answers[OPEN:], "global": answers}
        values: dict[str, Any] = {
            "settings": cell.model_dump(mode="json"),
            "predictions": where,
            "scores": {name: Score.share(sum(some), len(some)) for name, some in kinds.items()},
            "accuracy": accuracy(sum(answers[:OPEN]), sum(answers[OPEN:]), OPEN, QUESTIONS - OPEN),
            "environment": {"device": "NVIDIA A100", "cpu": "EPYC"},
            "data_digest": "d" * 64,
            "adapter_bytes": 4_000 * (index + 1),
        } | changes
        folder = self.path / cell.spec
        ResultsFile(folder / f"{cell.scale}.jsonl").append(make_record(cell, index, **values))
        (folder / where).parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {"question_id": f"q{i}", "answer_type": "open" if i < OPEN else "closed", "correct": correct}
            for i, correct in enumerate(answers)
        ]
        (folder / where).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def fill(self, right: Right = half, *, cells: int = 3, **changes: Any) -> Folder:
        for index in range(cells):
            self.put(index, right, **changes)
        return self

    def __str__(self) -> str:
        return str(self.path)


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

"""A report as a user has it: records with predictions on disk, one cell out of memory, one not run, and the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, rows_of
from bench.records.record import CellRecord, Failure, LossPoint, Memory, PhaseMemory, Status
from bench.report import build_table, html
from bench.spec.cell import Cell
from bench.spec.sections import Spec
from tests.factories import GIB, accuracy, failed_record, load_cells, make_estimate, make_record

N_OPEN, N_CLOSED = 20, 40
OOM, NOT_RUN = 8, 9
"""Places of the cells that ran out of memory and that were not run."""


@dataclass
class Report:
    """A spec with its records and a results folder."""

    spec: Spec
    cells: list[Cell]
    folder: Path
    records: dict[str, CellRecord] = field(default_factory=dict)

    @property
    def groups(self) -> list[Row]:
        return rows_of(self.spec, self.cells, self.records)

    def page(self, kept: Path | None = None) -> bytes | None:
        examples = ExampleScores(self.folder)
        table = build_table(self.spec, self.cells[0].scale, self.cells, self.records, examples)
        return html.page(self.spec, table, self.groups, examples, kept or self.folder / "none.html")

    def write(self, path: Path) -> Path:
        page = self.page()
        assert page is not None
        path.write_bytes(page)
        return path

    def put(self, place: int, right: Callable[[int], bool], **changes: Any) -> CellRecord:
        """A finished record of the cell, and its predictions: question ``i`` is answered right if ``right(i)``."""
        cell = self.cells[place]
        lines = [_line(i, right(i)) for i in range(N_OPEN + N_CLOSED)]
        path = Path("demo", cell.cell_id, "predictions.jsonl")
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        score = accuracy(
            sum(line["correct"] for line in lines[:N_OPEN]),
            sum(line["correct"] for line in lines[N_OPEN:]),
            N_OPEN,
            N_CLOSED,
        )
        peak = PhaseMemory(allocated_peak_bytes=(place + 2) * GIB, reserved_peak_bytes=(place + 3) * GIB)
        values: dict[str, Any] = {
            "accuracy": score,
            "predictions": path.as_posix(),
            "loss_curve": [LossPoint(step=10 * i + 9, loss=3.0 / (i + 1), lr=1e-3) for i in range(20)],
            "memory": Memory(train=peak, eval=peak, nvml_process_peak_bytes=(place + 4) * GIB),
            "estimate": make_estimate(place + 1.5),
        }
        record = make_record(cell, place, **(values | changes))
        self.records[cell.cell_id] = record
        return record


def _line(i: int, right: bool) -> dict[str, Any]:
    """Images and ids of the embedded data set, so that the page can show them."""
    closed = i >= N_OPEN
    gold = "yes" if closed else "circle"
    return {
        "question_id": f"test-{i}",
        "image": f"test/images/{i // 3}.png",
        "question": f"is there a shape {i}?" if closed else f"what is the shape {i}?",
        "answer": gold,
        "prediction": gold if right else "no" if closed else "square",
        "answer_type": "closed" if closed else "open",
        "correct": right,
    }


def half(i: int) -> bool:
    """Every second question."""
    return i % 2 == 0


def all_but_three(of: int) -> Callable[[int], bool]:
    """Three questions of every ``of`` are answered wrong."""
    return lambda i: i % of > 2


def above(least: int) -> Callable[[int], bool]:
    """All questions after the one of this place."""
    return lambda i: i > least


@pytest.fixture
def report(root: Path, tmp_path: Path) -> Report:
    """Table 1 as a demo: four cells that are no better than the prior, four nearly all right."""
    spec, cells = load_cells(root / "specs" / "table1.yaml", "demo")
    made = Report(spec, cells, tmp_path / "results")
    digest = _digest(cells[0])
    for place in range(OOM):
        made.put(place, all_but_three(12 + place) if place > 3 else half, data_digest=digest)
    failure = Failure(
        type="OutOfMemoryError", message="CUDA out of memory", phase="train", step=3, log_tail="a\nb\nlast line"
    )
    made.records[cells[OOM].cell_id] = failed_record(cells[OOM], Status.OOM, "train", 3).model_copy(
        update={"error": failure, "estimate": make_estimate(30.0)}
    )
    return made


def _digest(cell: Cell) -> str:
    from bench import registry

    found: str = registry.load("datasets", cell.data.name).digest(cell.data)
    return found

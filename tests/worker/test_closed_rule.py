"""A rule for closed questions that the data set cannot answer ends a cell before it trains, not after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.records.record import Status
from bench.spec.cell import Cell
from bench.worker.run import run_cell
from tests.datasets.conftest import picture, write_json


def test_no_answer_types_and_a_rule_that_needs_them(make_cell: Callable[..., Cell], tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = [f"vqa-rad/synpic{number}.jpg" for number in range(40)]
    for name in names:
        picture(root / "image" / name)
    rows = [{"img_name": name, "qid": n, "answer": "no", "question_pool": ["Is it?"]} for n, name in enumerate(names)]
    write_json(root / "instruction_data.json", rows)
    data = {"name": "mile_instruction", "root": str(root), "evaluate_on": "held_out"}
    job = tmp_path / "job"
    job.mkdir()
    record = run_cell(make_cell(data=data, evaluate={"closed": "answer_type"}), job)
    assert record.status is Status.ERROR
    assert record.error is not None
    assert record.error.phase == "setup"
    assert "set `evaluate.closed: yes_no`" in record.error.message
    (tmp_path / "other").mkdir()
    assert run_cell(make_cell(data=data, evaluate={"closed": "yes_no"}), tmp_path / "other").status is Status.OK

"""Records of cells whose answers to single questions are known, with their files of predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records.record import CellRecord
from bench.spec.cell import Cell
from tests.factories import accuracy, make_record


def answered(folder: Path, cell: Cell, right: Sequence[bool], *, closed: int = 0, **changes: Any) -> CellRecord:
    """A record in ``folder`` of a cell that answered these questions right or wrong; the last ``closed`` are closed."""
    first_closed = len(right) - closed
    lines = [
        {"question_id": f"q{i}", "answer_type": "open" if i < first_closed else "closed", "correct": bool(hit)}
        for i, hit in enumerate(right)
    ]
    path = folder / cell.scale / cell.cell_id / "predictions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = accuracy(sum(right[:first_closed]), sum(right[first_closed:]), first_closed, closed)
    known: dict[str, Any] = {"accuracy": scored, "predictions": str(path.relative_to(folder))}
    return make_record(cell, **(known | changes))

"""Runs of real and of fake workers with trackers set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.execution.runner import RunSummary, run
from bench.records.record import CellRecord
from bench.spec.cell import Cell
from tests.sweeps import Listening, make_cell

SMALL: dict[str, Any] = {
    "model": {
        "family": "miss",
        "preset": "tiny",
        "vision": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16},
        "text": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    },
    "train": {
        "steps": 6,
        "batch_size": 4,
        "optimizer": {"lr": 1e-3},
        "timing_warmup_steps": 2,
        "log_every": 1,
        "save_adapter": True,
    },
}


def small_cell(label: str, *trackers: dict[str, Any], **changes: Any) -> Cell:
    """A cell that trains and evaluates within a second or two."""
    cell = make_cell(label, trackers=list(trackers))
    return Cell.model_validate(cell.model_dump(mode="json") | SMALL | changes)


def run_here(cells: list[Cell], results: Path, *, fresh: bool = False) -> tuple[RunSummary, dict[str, CellRecord]]:
    """Run real workers in this process; the summary, and label -> record."""
    summary = run(cells, results=results, executor="inline", fresh=fresh, reporter=Listening())
    return summary, {record.label: record for record in summary.records}

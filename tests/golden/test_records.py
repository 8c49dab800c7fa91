"""The committed gallery: its records are whole. ``tests/golden`` compares its reports with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import metrics
from bench.records.store import ResultsFile
from tests.conftest import ROOT

GALLERY = ROOT / "results" / "gallery"
RECORDS = sorted(path for path in GALLERY.glob("*/*.jsonl") if path.parent.name != "validation")
FAILING = {("all_methods", "SHADOW variant=llama"): "without a gradient"}
"""Cells that are shown with their error, and words of it."""


def test_there_is_a_gallery() -> None:
    assert {path.parent.name for path in RECORDS} >= {"table1", "table5", "vqa_rad_small", "demo_backbone"}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_records_are_whole_and_say_where_they_were_made(path: Path) -> None:
    records = ResultsFile(path).read().values()
    assert records
    for record in records:
        assert record.environment["device"]
        if (words := FAILING.get((record.spec, record.label))) is not None:
            assert record.error is not None
            assert words in record.error.message
            continue
        assert record.status == "ok"
        score = record.score(metrics.main(record.task))
        assert score is not None
        assert record.predictions is not None
        lines = (path.parent / record.predictions).read_text(encoding="utf-8").splitlines()
        assert len(lines) == score.n

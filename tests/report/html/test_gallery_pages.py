"""The committed pages say what the committed records say."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import rows_of
from bench.records.store import ResultsFile
from bench.report.html import collect, page_data, questions, summary
from tests.conftest import ROOT
from tests.factories import load_cells

PAGES = sorted((ROOT / "reports" / "gallery").glob("*/index.html"))


def test_there_are_pages() -> None:
    assert {page.parent.name for page in PAGES} >= {"table1", "table2", "table3", "table4", "vqa_rad_small"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_page_of_the_gallery_is_of_its_records(page: Path) -> None:
    name = page.parent.name
    (file,) = (ROOT / "results" / "gallery" / name).glob("*.jsonl")
    spec, cells = load_cells(next((ROOT / "specs").rglob(f"{name}.yaml")), file.stem)
    records, examples = ResultsFile(file).read(), ExampleScores(file.parent)
    groups = rows_of(spec, cells, records)
    axes = page_data.axes_of(groups)
    asked = questions.read([record for group in groups for record in group.records], file.parent)
    found = collect(spec, groups, axes, asked)
    text = page.read_text(encoding="utf-8")
    kept = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert len(kept["images"]) > 50 or "made with other data" in kept["note"]
    assert without_pictures(kept) == json.loads(json.dumps(found))
    intervals = [summary.intervals(group, axes, examples) for group in groups]
    assert [row["intervals"] for row in kept["rows"]] == json.loads(json.dumps(intervals))
    for statement in summary.summary(groups, examples):
        assert html.escape(statement.title, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def without_pictures(kept: dict[str, Any]) -> dict[str, Any]:
    """What was collected, before intervals and images were added."""
    questions = [{key: value for key, value in one.items() if key != "i"} for one in kept["questions"]]
    rows = [{key: value for key, value in one.items() if key != "intervals"} for one in kept["rows"]]
    rest = {key: value for key, value in kept.items() if key not in ("images", "note")}
    return rest | {"questions": questions, "rows": rows}

"""The committed validation: it holds, and its pages are what its lines say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.estimate.validation import cases, pages

FOLDER = Path(__file__).resolve().parents[3] / "results" / "gallery" / "validation"
MADE = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def read(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    environment, *lines = map(json.loads, (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    return environment["environment"], lines


def test_what_needs_no_gpu_is_there() -> None:
    assert set(MADE) >= {"cpu", "paper"}


@pytest.mark.parametrize("name", MADE)
def test_pages_are_what_the_lines_say(name: str) -> None:
    environment, lines = read(name)
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == pages.page(name, environment, lines)
    assert environment["versions"]["torch"]


def test_every_case_on_the_cpu_holds() -> None:
    _, lines = read("cpu")
    assert all(line["holds"] and abs(line["error"]) <= 0.01 for line in lines)
    assert all(line["mem_tracker_bytes"] == line["predicted_out_of_place_bytes"] for line in lines)
    assert [line["case"] for line in lines] == [case.name for case in (*cases.cells(), *cases.plain_models())]


def test_the_papers_column_is_within_its_limits() -> None:
    _, (*rows, summary) = read("paper")
    ours = next(iter(summary["readings"].values()))
    assert len(rows) == 23
    assert ours["mean"] <= 0.05
    assert abs(ours["worst"]) <= 0.12
    assert {row["estimate"]["assumed"]["lengths_from"] for row in rows} == {"annotations"}

"""Published numbers: whose they are, which contradict themselves, and which a run reproduces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.published import find, implied_global, inconsistencies
from bench.analysis.reproduction import PublishedCheck, Reproduction, reproduce, without_counts
from bench.analysis.rows import rows_of
from bench.analysis.tolerances import parse
from bench.records.costs import Params
from bench.records.record import Memory, PhaseMemory
from bench.report.compare import reproduction_summary, verdict_text
from bench.spec.sections import Published, Spec
from tests.analysis.conftest import near
from tests.factories import GIB, N_CLOSED, N_OPEN, accuracy, load_cells, make_estimate, make_record
from tests.report.conftest import Case

COUNTS = {"open": [703, 704, 705, 706], "closed": [355]}
FLAGGED = {
    ("1", "F", "LoRA", "LoRA", "4"): 19.4,
    ("1", "F", "LoRA", "LoRA", "8"): 19.4,
    ("1", "LoRA", "LoRA", "LoRA", "8"): 49.5,
    ("1", "F", "T", "LoRA", "4"): 55.5,
    ("2", "F", "F", "Prefix", ""): 17.0,
    ("2", "F", "Prefix", "Prefix", ""): 17.0,
    ("2", "T", "Prefix", "Prefix", ""): 38.6,
}
"""Table, pattern, rank -> global that open and closed imply."""


@pytest.fixture
def table1(root: Path) -> Path:
    return root / "specs" / "table1.yaml"


# --- rows of the paper -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "rows", "flags"), [(1, 10, 4), (2, 4, 3), (3, 5, 0), (4, 4, 0)])
def test_published_rows_of_the_specs_find_their_cells(root: Path, number: int, rows: int, flags: int) -> None:
    table = Case(*load_cells(root / "specs" / f"table{number}.yaml")).table()
    assert len(table.rows) == rows
    assert all(e.published is not None for row in table.rows for e in row.values if e.digits)
    flagged = {
        tuple(e.text for e in row.values if not e.digits) for row in table.rows if any(e.flagged for e in row.values)
    }
    assert len(flagged) == flags
    assert flagged == {key[1:4] + key[4:] * bool(key[4]) for key in FLAGGED if key[0] == str(number)}
    notes = [note for note in table.footnotes if note.startswith("†")]
    assert len(notes) == bool(flags)
    if number == 1:
        assert "LoRA-LoRA-LoRA rank=8 (printed 49.57, implied 49.53)" in notes[0]


def test_without_counts_nothing_is_implied() -> None:
    values = {"open": 3.57, "closed": 50.7, "global": 20.34}
    assert implied_global(values, None) is None
    assert implied_global(values, COUNTS) is not None
    assert implied_global({"open": 3.57, "closed": 50.7}, COUNTS) is None


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"vit": "F", "rank": 4.0}, {"open": 1.5}),
        ({"vit": "F", "rank": 8}, {"open": 2.0}),
        ({"vit": "T", "rank": 4}, None),
        ({}, None),
    ],
)
def test_a_row_belongs_to_the_cell_that_agrees_in_all_it_names(
    labels: dict[str, Any], values: dict[str, float] | None
) -> None:
    rows = [{"vit": "F", "rank": 4, "open": "1.5%"}, {"vit": "F", "open": 2, "closed": None}]
    found = find(Published(source="a paper", rows=rows), labels, "paper")
    assert (found and dict(found.values)) == values
    assert find(None, labels, "paper") is None


OPEN_COUNT = "which no whole number of 703 to 706 questions gives"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "table1",
            [
                "global printed 20.34; open and closed imply 19.38",
                f"open printed 3.57, {OPEN_COUNT}",
                "global printed 20.34; open and closed imply 19.38",
                f"open printed 3.57, {OPEN_COUNT}",
                "global printed 49.57; open and closed imply 49.53",
                "global printed 55.53; open and closed imply 55.46",
                f"open printed 47.76, {OPEN_COUNT}",
            ],
        ),
        (
            "table2",
            [
                "global printed 17.30; open and closed imply 17.01",
                "global printed 17.30; open and closed imply 17.01",
                "global printed 38.61; open and closed imply 38.64",
                f"open printed 76.82, {OPEN_COUNT}",
            ],
        ),
        ("table3", []),
    ],
)
def test_the_paper_contradicts_itself(root: Path, name: str, shown: list[str]) -> None:
    found = problems(*load_cells(root / "specs" / f"{name}.yaml"))
    assert [problem.partition(": ")[2] for problem in found] == shown


def problems(spec: Spec, cells: list[Any]) -> list[str]:
    found = inconsistencies(spec.published, [row.labels for row in rows_of(spec, cells, {})])
    return [f"{one.row}: {one.metric} {one.problem}" for one in found]


def test_a_row_without_a_cell(table1: Path) -> None:
    spec, cells = load_cells(table1)
    rows = [{"vit": "F", "jtm": "F", "dec": "F", "open": 50.0}]
    published = Published(source="s", rows=rows, counts={"open": [N_OPEN], "closed": [N_CLOSED]})
    found = problems(spec.model_copy(update={"published": published}), cells)
    assert found == ["vit F, jtm F, dec F:  no cell of the spec is this row's"]


@pytest.mark.parametrize(("value", "fits"), [(50.7, True), (50.71, False), (0, True), (100, True), (33.52, True)])
def test_a_share_is_a_whole_number_of_questions(value: float, fits: bool) -> None:
    """180 / 355 is 50.704; 119 / 355 is 33.521."""
    published = Published(source="s", rows=[{"vit": "F", "closed": value}], counts={"closed": [355]})
    assert (inconsistencies(published, [{"vit": "F"}]) == []) is fits


# --- verdicts --------------------------------------------------------------------------------------------------


def reproduced(path: Path, scale: str = "paper", tolerances: tuple[str, ...] = (), **changes: Any) -> Reproduction:
    """With a record of the first cell only."""
    spec, cells = load_cells(path, scale)
    values = {"params": params(0.163), "accuracy": accuracy(26, 180), "memory": memory(5.4)} | changes
    records = {cells[0].cell_id: make_record(cells[0], **values)}
    return reproduce(spec, scale, rows_of(spec, cells, records), ExampleScores(None), parse(tolerances))


def params(pct: float) -> Params:
    return Params(trainable=1, total=2, pct=pct, stored=1, by_part={})


def memory(gib: float) -> Memory:
    return Memory(train=PhaseMemory(allocated_peak_bytes=int(gib * GIB)))


def first(found: Reproduction, metric: str) -> PublishedCheck:
    return next(check for check in found.checks if check.metric.name == metric)


@pytest.mark.parametrize("scale", ["paper", "instruction"])
def test_verdicts(table1: Path, scale: str) -> None:
    """Published: #Params 0.163, Memory 5.19, Open 3.57, Closed 50.70, Global 20.34; ours 26 of 706 and 180 of 355."""
    found = reproduced(table1, scale)
    texts = {check.metric.name: verdict_text(check) for check in found.checks[:5]}
    assert texts == dict.fromkeys(("params", "memory", "open", "closed", "global"), "reproduced")
    assert (found.comparable, found.exit_code) == (True, 0)
    assert {check.verdict for check in found.checks[5:]} == {"not measured"}
    summary = "50 published numbers: 5 reproduced, 45 not measured, 7 inconsistent in the paper"
    assert reproduction_summary(found) == summary
    assert all(check.cells for check in found.checks)


@pytest.mark.parametrize(
    ("changes", "metric", "text"),
    [
        ({"params": params(0.1634)}, "params", "reproduced"),
        ({"params": params(0.1636)}, "params", "off by +0.001"),
        ({"memory": memory(5.8)}, "memory", "off by +0.61"),
        ({"accuracy": accuracy(26, 250)}, "closed", "off by +19.72"),
        ({"accuracy": accuracy(0, 180)}, "open", "off by −3.57"),
        ({"memory": Memory()}, "memory", "not measured"),
        ({"memory": Memory(), "estimate": make_estimate(4.0)}, "memory", "not measured (≈ −1.19)"),
    ],
)
def test_what_is_off(table1: Path, changes: dict[str, Any], metric: str, text: str) -> None:
    found = reproduced(table1, **changes)
    assert verdict_text(first(found, metric)) == text
    assert found.exit_code == text.startswith("off")


def test_the_tolerance_of_a_score_is_half_of_its_interval(table1: Path) -> None:
    """Of 180 of 355: 5.2 points; a user's own tolerance is taken as it is."""
    one = first(reproduced(table1), "closed")
    assert (one.tolerance, one.rule) == (near(5.17, 0.05), "half of our interval at 95 %")
    changes: dict[str, Any] = {"accuracy": accuracy(26, 190)}
    assert first(reproduced(table1, **changes), "closed").verdict == "reproduced"
    assert first(reproduced(table1, tolerances=("closed=1",), **changes), "closed").verdict == "off"
    assert first(reproduced(table1, tolerances=("memory=1%",)), "memory").verdict == "off"
    assert first(reproduced(table1, tolerances=("params=0",)), "params").verdict == "reproduced"


@pytest.mark.parametrize(("pct", "verdict"), [(99.996, "reproduced"), (99.99, "off")])
def test_parameters_agree_to_the_digit_that_the_paper_prints(root: Path, pct: float, verdict: str) -> None:
    """Table 5 prints two decimals."""
    assert first(reproduced(root / "specs" / "table5.yaml", params=params(pct)), "params").verdict == verdict


def test_nothing_measured_is_no_success(table1: Path) -> None:
    spec, cells = load_cells(table1)
    found = reproduce(spec, "paper", rows_of(spec, cells, {}), ExampleScores(None), {})
    assert ({check.verdict for check in found.checks}, found.exit_code) == ({"not measured"}, 1)


def test_cells_that_need_counting_are_those_without_any_count(table1: Path) -> None:
    spec, cells = load_cells(table1)
    records = {
        cells[0].cell_id: make_record(cells[0], params=params(0.163)),
        cells[1].cell_id: make_record(cells[1], params=None, estimate=make_estimate()),
        cells[2].cell_id: make_record(cells[2], params=None, estimate=None),
    }
    assert without_counts(rows_of(spec, cells, records)) == cells[2:]
    demo, of_demo = load_cells(table1, "demo")
    assert without_counts(rows_of(demo, of_demo, {})) == []


def test_a_demo_is_compared_with_nothing(table1: Path) -> None:
    found = reproduced(table1, "demo")
    assert {verdict_text(check) for check in found.checks} == {"not comparable"}
    assert found.exit_code == 1, "nothing could be compared"
    assert reproduction_summary(found).startswith("50 published numbers: 50 not comparable, nothing could be compared")
    assert first(found, "closed").tolerance is None

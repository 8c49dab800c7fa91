"""Verdicts on published numbers, and what contradicts itself in the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.published import inconsistencies
from bench.analysis.reproduction import PublishedCheck, Reproduction, reproduce, without_counts
from bench.analysis.rows import rows_of
from bench.analysis.tolerances import parse
from bench.records.costs import Params
from bench.records.record import Memory, PhaseMemory
from bench.report.compare import reproduction_summary, verdict_text
from bench.spec.sections import Published, Spec
from tests.factories import N_CLOSED, N_OPEN, accuracy, load_cells, make_estimate, make_record


@pytest.fixture
def table1(root: Path) -> Path:
    return root / "specs" / "table1.yaml"


def reproduced(path: Path, scale: str = "paper", tolerances: tuple[str, ...] = (), **changes: Any) -> Reproduction:
    """With a record of the first cell only."""
    spec, cells = load_cells(path, scale)
    values = {"params": params(0.163), "accuracy": accuracy(26, 180), "memory": memory(5.4)} | changes
    records = {cells[0].cell_id: make_record(cells[0], **values)}
    return reproduce(spec, scale, rows_of(spec, cells, records), ExampleScores(None), parse(tolerances))


def params(pct: float) -> Params:
    return Params(trainable=1, total=2, pct=pct, stored=1, by_part={})


def memory(gib: float) -> Memory:
    return Memory(train=PhaseMemory(allocated_peak_bytes=int(gib * 2**30)))


def first(found: Reproduction, metric: str) -> PublishedCheck:
    return next(verdict for verdict in found.checks if verdict.metric.name == metric)


def test_verdicts(table1: Path) -> None:
    """Published: #Params 0.163, Memory 5.19, Open 3.57, Closed 50.70, Global 20.34; ours 26 of 706 and 180 of 355."""
    found = reproduced(table1)
    texts = {verdict.metric.name: verdict_text(verdict) for verdict in found.checks[:5]}
    assert texts == {
        "params": "reproduced", "memory": "reproduced", "open": "reproduced", "closed": "reproduced",
        "global": "reproduced",
    }  # fmt: skip
    assert found.exit_code == 0
    assert {verdict.verdict for verdict in found.checks[5:]} == {"not measured"}
    assert (
        reproduction_summary(found)
        == "50 published numbers: 5 reproduced, 45 not measured, 7 inconsistent in the paper"
    )
    assert all(verdict.cells for verdict in found.checks)


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
    assert one.tolerance == pytest.approx(5.17, abs=0.05)
    assert one.rule == "half of our interval at 95 %"
    changes: dict[str, Any] = {"accuracy": accuracy(26, 190)}
    assert first(reproduced(table1, **changes), "closed").verdict == "reproduced"
    assert first(reproduced(table1, tolerances=("closed=1",), **changes), "closed").verdict == "off"
    assert first(reproduced(table1, tolerances=("memory=1%",)), "memory").verdict == "off"
    assert first(reproduced(table1, tolerances=("params=0",)), "params").verdict == "reproduced"


def test_parameters_agree_to_the_digit_that_the_paper_prints(root: Path) -> None:
    """Table 5 prints two decimals."""
    found = reproduced(root / "specs" / "table5.yaml", params=params(99.996))
    assert verdict_text(first(found, "params")) == "reproduced"
    assert (
        verdict_text(first(reproduced(root / "specs" / "table5.yaml", params=params(99.99)), "params")) != "reproduced"
    )


def test_a_scale_that_may_be_the_published_setting_is_compared(table1: Path) -> None:
    found = reproduced(table1, "instruction")
    assert [verdict_text(verdict) for verdict in found.checks[:5]] == ["reproduced"] * 5
    assert (found.comparable, found.exit_code) == (True, 0)


def test_nothing_measured_is_no_success(table1: Path) -> None:
    spec, cells = load_cells(table1)
    found = reproduce(spec, "paper", rows_of(spec, cells, {}), ExampleScores(None), parse(()))
    assert {verdict.verdict for verdict in found.checks} == {"not measured"}
    assert found.exit_code == 1


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
    assert {verdict_text(verdict) for verdict in found.checks} == {"not comparable"}
    assert found.exit_code == 1, "nothing could be compared"
    assert reproduction_summary(found).startswith("50 published numbers: 50 not comparable, nothing could be compared")
    assert first(found, "closed").tolerance is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "table1",
            [
                ("global", "printed 20.34; open and closed imply 19.38"),
                ("open", "printed 3.57, which no whole number of 703 to 706 questions gives"),
                ("global", "printed 20.34; open and closed imply 19.38"),
                ("open", "printed 3.57, which no whole number of 703 to 706 questions gives"),
                ("global", "printed 49.57; open and closed imply 49.53"),
                ("global", "printed 55.53; open and closed imply 55.46"),
                ("open", "printed 47.76, which no whole number of 703 to 706 questions gives"),
            ],
        ),
        (
            "table2",
            [
                ("global", "printed 17.30; open and closed imply 17.01"),
                ("global", "printed 17.30; open and closed imply 17.01"),
                ("global", "printed 38.61; open and closed imply 38.64"),
                ("open", "printed 76.82, which no whole number of 703 to 706 questions gives"),
            ],
        ),
        ("table3", []),
    ],
)
def test_the_paper_contradicts_itself(root: Path, name: str, shown: list[tuple[str, str]]) -> None:
    found = of_spec(load_cells(root / "specs" / f"{name}.yaml")[0], root / "specs" / f"{name}.yaml")
    assert [(one.metric, one.problem) for one in found] == shown


def of_spec(spec: Spec, path: Path) -> list[Any]:
    labels = [group.labels for group in rows_of(spec, load_cells(path)[1], {})]
    return inconsistencies(spec.published, labels)


def test_a_row_without_a_cell(table1: Path) -> None:
    spec = load_cells(table1)[0]
    rows = [{"vit": "F", "jtm": "F", "dec": "F", "open": 50.0}]
    published = Published(source="s", rows=rows, counts={"open": [N_OPEN], "closed": [N_CLOSED]})
    found = of_spec(spec.model_copy(update={"published": published}), table1)
    assert [(one.row, one.problem) for one in found] == [("vit F, jtm F, dec F", "no cell of the spec is this row's")]


@pytest.mark.parametrize(("value", "fits"), [(50.7, True), (50.71, False), (0, True), (100, True), (33.52, True)])
def test_a_share_is_a_whole_number_of_questions(value: float, fits: bool) -> None:
    """180 / 355 is 50.704; 119 / 355 is 33.521."""
    published = Published(source="s", rows=[{"vit": "F", "closed": value}], counts={"closed": [355]})
    assert (inconsistencies(published, [{"vit": "F"}]) == []) is fits

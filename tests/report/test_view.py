"""Views of a table: chosen columns, groups, transposition, significant digits."""

from __future__ import annotations

from typing import Any

import pytest

from bench.errors import SpecError
from bench.records.record import Memory, Status, Time
from bench.report.view import View, Wanted, view
from tests.factories import failed_record, make_estimate, make_record
from tests.report.conftest import Case


@pytest.fixture
def table1(paper: Case) -> Case:
    """Ten records, no predictions."""
    return paper.fill()


def shown(grid: View) -> list[list[str]]:
    return [[words for words, _ in row] for rows in grid.sections.values() for row in rows]


def of(case: Case, **wanted: Any) -> View:
    return view(case.spec, case.scale, case.cells, case.records, Wanted(**wanted))


def test_as_the_spec_says(table1: Case) -> None:
    grid = of(table1)
    assert grid.headers[:5] == ["ViT", "JTM", "Dec", "Rank", "#Params (%)"]
    assert (len(shown(grid)), list(grid.sections)) == (13, [""])
    assert not any("Published" in note for note in grid.notes)


def test_chosen_columns_keep_the_spec_s_headers(table1: Case) -> None:
    grid = of(table1, columns=["rank", "step_time", "global", "vit"])
    assert grid.headers == ["Rank", "Step (ms)", "Global (%)", "ViT"]
    assert grid.numeric == [False, True, True, False]
    assert shown(grid)[0][::3] == ["4", "F"]


def test_a_view_of_metrics_only_names_the_cells(table1: Case) -> None:
    assert shown(of(table1, columns=["global"]))[0][0] == "F-LoRA-LoRA rank=4"
    assert shown(of(table1, columns=["global"], group_by="vit"))[0][0] == "F-LoRA-LoRA rank=4"
    assert shown(of(table1, columns=["global"], group_by="vit"))[-1] == ["Always no", "16.97"]


def test_groups(table1: Case) -> None:
    grid = of(table1, columns=["jtm", "vit", "rank", "global"], group_by="vit")
    assert [(heading, len(rows)) for heading, rows in grid.sections.items()] == [
        ("ViT: F", 4), ("ViT: LoRA", 2), ("ViT: T", 4), ("Baselines", 3),
    ]  # fmt: skip
    assert grid.headers == ["JTM", "Rank", "Global (%)"]
    by_axis = of(table1, group_by="rank")
    assert list(by_axis.sections) == ["Rank: 4", "Rank: 8", "Baselines"]
    assert [row[0] for row in shown(by_axis)][:5] == ["F", "LoRA", "F", "T", "T"]


def test_transposed(table1: Case) -> None:
    upright, turned = (of(table1, columns=["vit", "rank", "global"], transpose=way) for way in (False, True))
    rows = [upright.headers, *shown(upright)]
    assert [turned.headers, *shown(turned)] == [list(column) for column in zip(*rows, strict=True)]
    grouped = of(table1, columns=["vit", "global"], group_by="rank", transpose=True)
    assert grouped.headers == ["Rank", *["4"] * 5, *["8"] * 5, "Question only", "Always yes", "Always no"]


@pytest.mark.parametrize(
    ("digits", "step_s", "text"),
    [
        (3, 0.0123456, "12.3"),
        (3, 0.0099996, "10.0"),
        (2, 2.6912, "2,700"),
        (1, 0.0000012, "0.001"),
        (4, 0.0, "0.000"),
        (5, 1.0, "1,000.0"),
        (None, 0.0123456, "12.3"),
    ],
)
def test_significant_digits(table1: Case, digits: int | None, step_s: float, text: str) -> None:
    table1.put(0, make_record(table1.cells[0], time=Time(step_median_s=step_s)))
    assert shown(of(table1, columns=["rank", "step_time"], digits=digits))[0][1] == text


def test_predictions_keep_their_mark(table1: Case) -> None:
    table1.put(0, make_record(table1.cells[0], memory=Memory(), estimate=make_estimate(4.0)))
    assert shown(of(table1, columns=["rank", "memory"], digits=2))[0][1] == "≈ 4.0"


def test_published_values_stand_in_brackets(table1: Case) -> None:
    grid = of(table1, columns=["rank", "memory", "global"], published=True, digits=3)
    assert shown(grid)[0] == ["4", "5.20 (5.19)", "19.3 (20.3†)"]
    assert grid.notes[0] == "In brackets: published."
    assert "(" not in "".join(word for row in shown(of(table1, columns=["rank", "memory", "global"])) for word in row)


def test_failures_have_a_status(table1: Case) -> None:
    table1.put(0, failed_record(table1.cells[0], Status.OOM, "train", 3))
    upright, turned = of(table1, columns=["vit", "global"]), of(table1, columns=["vit", "global"], transpose=True)
    assert [row[-1] for row in shown(upright)][:2] == ["OOM (train, step 3)", "ok"]
    assert shown(turned)[-1][:3] == ["Status", "OOM (train, step 3)", "ok"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"columns": ["globl"]}, "did you mean 'global'"),
        ({"group_by": "vti"}, "did you mean 'vit'"),
        ({"group_by": "memory"}, "is a metric; name a part or an axis"),
        ({"digits": 0}, "1 to 12"),
        ({"digits": 13}, "1 to 12"),
    ],
)
def test_wrong_views(table1: Case, wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        of(table1, **wanted)

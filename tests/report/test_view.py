"""Views of a table: chosen columns, groups, rows and columns exchanged, significant digits; harmless to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.errors import SpecError
from bench.records.record import CellRecord, Memory, Status, Time
from bench.report.view import View, Wanted, latex_text, markdown_text, view
from bench.spec.cell import Cell
from bench.spec.sections import Spec
from tests.factories import failed_record, load_cells, make_estimate, make_record
from tests.report.test_hostile import LABELS, compile_tex, one_line, walk


@dataclass(frozen=True)
class Loaded:
    """Cells of a spec and their records."""

    spec: Spec
    cells: list[Cell]
    records: dict[str, CellRecord]


@pytest.fixture
def table1(root: Path) -> Loaded:
    """All ten cells at the paper's scale, no predictions."""
    spec, cells = load_cells(root / "specs" / "table1.yaml")
    records = {cell.cell_id: make_record(cell, i) for i, cell in enumerate(cells)}
    return Loaded(spec, cells, records)


def shown(grid: View) -> list[list[str]]:
    return [[words for words, _ in row] for rows in grid.sections.values() for row in rows]


def of(table1: Loaded, **wanted: Any) -> View:
    return view(table1.spec, "paper", table1.cells, table1.records, Wanted(**wanted))


def test_as_the_spec_says(table1: Loaded) -> None:
    grid = of(table1)
    assert grid.headers[:5] == ["ViT", "JTM", "Dec", "Rank", "#Params (%)"]
    assert (len(shown(grid)), list(grid.sections)) == (13, [""])
    assert not any("Published" in note for note in grid.notes)


def test_chosen_columns_keep_the_spec_s_headers(table1: Loaded) -> None:
    grid = of(table1, columns=["rank", "step_time", "global", "vit"])
    assert grid.headers == ["Rank", "Step (ms)", "Global (%)", "ViT"]
    assert grid.numeric == [False, True, True, False]
    assert shown(grid)[0][::3] == ["4", "F"]


def test_a_view_of_metrics_only_names_the_cells(table1: Loaded) -> None:
    assert shown(of(table1, columns=["global"]))[0][0] == "F-LoRA-LoRA rank=4"
    assert shown(of(table1, columns=["global"], group_by="vit"))[0][0] == "F-LoRA-LoRA rank=4"
    assert shown(of(table1, columns=["global"], group_by="vit"))[-1] == ["Always no", "16.97"]


def test_groups(table1: Loaded) -> None:
    grid = of(table1, columns=["jtm", "vit", "rank", "global"], group_by="vit")
    assert [(heading, len(rows)) for heading, rows in grid.sections.items()] == [
        ("ViT: F", 4), ("ViT: LoRA", 2), ("ViT: T", 4), ("Baselines", 3),
    ]  # fmt: skip
    assert grid.headers == ["JTM", "Rank", "Global (%)"]
    by_axis = of(table1, group_by="rank")
    assert list(by_axis.sections) == ["Rank: 4", "Rank: 8", "Baselines"]
    assert [row[0] for row in shown(by_axis)][:5] == ["F", "LoRA", "F", "T", "T"]


def test_rows_and_columns_exchanged(table1: Loaded) -> None:
    upright, turned = (
        of(table1, columns=["vit", "rank", "global"]),
        of(table1, columns=["vit", "rank", "global"], transpose=True),
    )
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
def test_significant_digits(table1: Loaded, digits: int | None, step_s: float, text: str) -> None:
    table1.records[table1.cells[0].cell_id] = make_record(table1.cells[0], time=Time(step_median_s=step_s))
    assert shown(of(table1, columns=["rank", "step_time"], digits=digits))[0][1] == text


def test_predictions_keep_their_mark(table1: Loaded) -> None:
    record = make_record(table1.cells[0], memory=Memory(), estimate=make_estimate(4.0))
    table1.records[table1.cells[0].cell_id] = record
    assert shown(of(table1, columns=["rank", "memory"], digits=2))[0][1] == "≈ 4.0"


def test_published_values_stand_in_brackets(table1: Loaded) -> None:
    grid = of(table1, columns=["rank", "memory", "global"], published=True, digits=3)
    assert shown(grid)[0] == ["4", "5.20 (5.19)", "19.3 (20.3†)"]
    assert grid.notes[0] == "In brackets: published."
    assert "(" not in "".join(word for row in shown(of(table1, columns=["rank", "memory", "global"])) for word in row)


def test_what_did_not_end_well_says_so(table1: Loaded) -> None:
    table1.records[table1.cells[0].cell_id] = failed_record(table1.cells[0], Status.OOM, "train", 3)
    upright, turned = of(table1, columns=["vit", "global"]), of(table1, columns=["vit", "global"], transpose=True)
    assert [row[-1] for row in shown(upright)][:2] == ["OOM (train, step 3)", "ok"]
    assert shown(turned)[-1][:3] == ["Status", "OOM (train, step 3)", "ok"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"columns": ["globl"]}, "did you mean 'global'"),
        ({"group_by": "vti"}, "did you mean 'vit'"),
        ({"group_by": "memory"}, "is a metric; name a part or an axis"),
        ({"digits": 0}, "1 to 12"),
        ({"digits": 13}, "1 to 12"),
    ],
)
def test_wrong_views(table1: Loaded, wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        of(table1, **wanted)


@pytest.fixture
def hostile(table1: Loaded) -> Loaded:
    places = [{"parts": cell.parts | {"vit": label, "jtm": label}, "labels": {"rank": label}, "label": label}
              for cell, label in zip(table1.cells, LABELS, strict=True)]  # fmt: skip
    cells = [cell.model_copy(update=place) for cell, place in zip(table1.cells, places, strict=True)]
    records = {cell.cell_id: make_record(cell, i) for i, cell in enumerate(cells)}
    spec = table1.spec.model_copy(update={"title": "# $\\frac{$ <b>t</b> |x|"})
    return Loaded(spec, cells, records)


@pytest.mark.parametrize("transpose", [False, True])
def test_markdown_shows_every_label_as_it_is(hostile: Loaded, transpose: bool) -> None:
    text = markdown_text(of(hostile, columns=["vit", "jtm", "global"], group_by="vit", transpose=transpose))
    tokens = walk(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text))
    inline = [child for token in tokens if token.type == "inline" for child in token.children or []]
    allowed = {"text", "strong_open", "strong_close", "em_open", "em_close", "softbreak", "hardbreak", "html_inline"}
    assert {child.type for child in inline} <= allowed
    assert {child.content for child in inline if child.type == "html_inline"} <= {"<!-- -->"}
    found = ["".join(c.content for c in token.children or [] if c.type == "text") for token in tokens]
    for label in LABELS:
        assert one_line(label) in found


@pytest.mark.parametrize("transpose", [False, True])
def test_latex_compiles_and_runs_nothing(hostile: Loaded, tmp_path: Path, transpose: bool) -> None:
    (tmp_path / "secret.tex").write_text("CANARY")
    grid = of(hostile, columns=["jtm", "memory", "global"], group_by="vit", transpose=transpose, published=True)
    (tmp_path / "table.tex").write_text(latex_text(grid))
    log, page = compile_tex(tmp_path)
    assert "CANARY" not in page
    assert not (tmp_path / "pwned").exists()
    assert "Overfull" not in log
    if not transpose:
        assert r"\input{secret}" in page

"""Markdown, CSV, LaTeX and the terminal print the same table."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.records.record import Status
from bench.report import csv_file, latex, markdown
from bench.report.table import Table
from bench.report.terminal import MAX_ROWS, print_summary
from tests.factories import accuracy, failed_record, load_cells, make_estimate, make_record
from tests.report.conftest import Case


@pytest.fixture
def table(demo: Case) -> Table:
    demo.fill(cuda=False).put(6, failed_record(demo.cells[6], Status.OOM, "train", 3))
    return demo.table()


def rows_of(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_file.render(table))))


def test_markdown_row(table: Table) -> None:
    lines = markdown.render(table).splitlines()
    assert lines[0].startswith("# **DEMO**: Table 1")
    assert lines[2].startswith("**DEMO**: Not the published setting")
    assert "| T | T | LoRA | 8 | 1.605 | 61.919 | −60.314 | — | 28.11 | — | **77.48** | 78.66 | −1.18 |" in "\n".join(
        lines
    )
    assert next(line for line in lines if "OOM" in line).startswith("| T | LoRA | LoRA | 4 |")
    assert any(line.startswith("| *Question only* |") for line in lines)


def test_latex_lines(table: Table) -> None:
    text = latex.render(table)
    assert r"\caption{\textbf{DEMO}: LoRA in the vision encoder" in text
    assert r"\textbf{77.48}" in text
    assert r"\color{black!60}28.11}" in text
    assert "OOM (train, step 3)" in text
    assert r"\multicolumn{4}{@{}l}{Question only}" in text
    assert text.isascii()


def test_csv_is_raw(table: Table) -> None:
    rows = rows_of(table)
    assert {row["scale"] for row in rows} == {"DEMO"}
    last = rows[9]
    assert (last["ViT"], last["Rank"], last["status"], last["seeds"]) == ("T", "8", "ok", "1")
    assert (last["Opened (%) correct"], last["Opened (%) n"]) == ("547", "706")
    assert float(last["Opened (%)"]) == pytest.approx(100 * 547 / 706)
    assert float(last["Opened (%) deviation"]) == pytest.approx(100 * 547 / 706 - 78.66)
    assert last["Memory (GiB)"] == ""
    assert rows[6]["status"] == "OOM (train, step 3)"
    assert rows[6]["Global (%)"] == ""
    assert rows[6]["Global (%) published"] == "62.29"
    assert "implied 19.38" in rows[0]["note"]
    assert rows[10]["status"] == "baseline"
    assert "Opened (%) std" not in last


def shown(table: Table, width: int) -> str:
    out = io.StringIO()
    print_summary(
        Console(width=width, file=out, force_terminal=True, color_system=None),
        table,
        [Path("reports/table1/table.md"), Path("reports/table1/a.png")],
    )
    return out.getvalue()


def test_the_terminal_summary_fits_eighty_columns(table: Table) -> None:
    text = shown(table, 80)
    assert text.startswith("DEMO: Table 1")
    assert max(len(line) for line in text.splitlines() if "Wrote" not in line) <= 80
    assert "LoRA-LoRA-LoRA rank=8    0.642       —   28.19" in text
    assert "…" not in text
    assert text.rstrip().endswith("Wrote reports/table1/: table.md, a.png")


def test_a_narrow_terminal_stacks_the_cells(table: Table) -> None:
    lines = shown(table, 50).splitlines()
    at = lines.index("T-LoRA-LoRA rank=4")
    assert lines[at + 1] == "  #Params (%) 0.161, Status OOM (train, step 3)"


def test_of_a_thousand_cells_the_terminal_shows_the_best_and_the_first(table: Table) -> None:
    dull, best = (replace(table.rows[0], label=label) for label in ("dull", "best"))
    dull = replace(dull, values=tuple(replace(entry, best=False) for entry in dull.values))
    best = replace(best, values=(*dull.values[:-1], replace(dull.values[-1], best=True)))
    baselines = [row for row in table.rows if row.baseline]
    for width in (200, 50):
        lines = shown(replace(table, rows=(*[dull] * 998, best, dull, *baselines)), width).splitlines()
        first_words = [line.split()[0] for line in lines if line.strip()]
        assert first_words.count("dull") == MAX_ROWS - 1
        assert first_words.count("best") == 1
        assert all(any(row.label in line for line in lines) for row in baselines)
        assert "And 800 more cells: see table.md." in lines
    assert "more cells" not in shown(replace(table, rows=(dull,) * MAX_ROWS), 200)


@pytest.fixture
def predicted(paper: Case) -> Table:
    """The first row was measured, the others predicted."""
    paper.fill(cuda=False, estimate=make_estimate(5.0))
    paper.put(0, make_record(paper.cells[0], estimate=make_estimate(5.0)))
    return paper.table()


def test_predictions_are_marked(predicted: Table) -> None:
    text = markdown.render(predicted)
    for words in ("| 5.20 | 5.19 | +0.01 |", "| ≈ 5.00 | 5.21 | ≈ −0.21 |", "≈ Predicted for a CUDA GPU, not measured"):
        assert words in text
    assert "**≈" not in text
    assert "≈ 5.00" in shown(predicted, 100)
    text = latex.render(predicted)
    assert r"& $\approx$ 5.00 &" in text
    assert r"5.21 ($\approx$ \ensuremath{-}0.21)" in text
    assert r"$\approx$ Predicted for a CUDA GPU, not measured" in text
    assert text.isascii()


def test_csv_keeps_predictions_apart(predicted: Table) -> None:
    first, second, *_ = rows_of(predicted)
    assert (first["Memory (GiB)"], first["Memory (GiB) predicted"]) == ("5.2", "5")
    assert (second["Memory (GiB)"], second["Memory (GiB) predicted"]) == ("", "5")
    assert second["Memory (GiB) deviation"] == ""
    assert "#Params (%) predicted" not in first
    assert "≈" not in csv_file.render(predicted)


def test_without_estimates_nothing_changes(table: Table) -> None:
    for text in (markdown.render(table), latex.render(table), csv_file.render(table), shown(table, 120)):
        assert "≈" not in text
        assert "approx" not in text
        assert "redicted" not in text


def test_the_deviation_over_the_seeds_is_printed(root: Path) -> None:
    spec, cells = load_cells(root / "specs" / "table1.yaml", seeds=[1, 2, 3])
    case = Case(spec, cells)
    for i, correct in enumerate((351, 353, 358, 101, 102, 103)):
        case.put(i, make_record(cells[i], accuracy=accuracy(correct, 180)))
    printed = latex.render(case.table())
    assert r"\textbf{50.14}\,{\scriptsize\ensuremath{\pm}0.51}" in printed
    assert r" & 14.45\,{\scriptsize\ensuremath{\pm}0.14}" in printed
    assert "**50.14 ± 0.51**" in markdown.render(case.table())
    row = rows_of(case.table())[0]
    assert (row["Opened (%) std"][:4], row["seeds"]) == ("0.51", "3")

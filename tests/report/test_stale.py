"""Results of other data, models or versions: shown in grey with the reason, compared with nothing, told apart."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import metrics
from bench.analysis.best import mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import baselines_of, rows_of
from bench.errors import DataError
from bench.execution import inputs
from bench.records.record import CellRecord, Overlap
from bench.report import build_table, csv_file, html, latex, markdown
from bench.report.pareto import build_plot
from bench.report.terminal import print_summary
from tests.factories import accuracy
from tests.report.conftest import Case

BEST = 9
"""Place of the cell with the best score."""


@pytest.fixture
def stale(demo: Case) -> tuple[Case, dict[str, str]]:
    """Ten cells; the best one ran on data that have changed since."""
    demo.fill(cuda=False)
    return demo, {demo.cells[BEST].cell_id: "data changed"}


def test_a_stale_row_is_grey_everywhere_with_the_reason(stale: tuple[Case, dict[str, str]], tmp_path: Path) -> None:
    case, reasons = stale
    fresh = build_table(case.spec, case.scale, case.cells, case.records)
    table = build_table(case.spec, case.scale, case.cells, case.records, None, reasons)
    row, before = table.rows[BEST], fresh.rows[BEST]
    assert (row.stale, row.status, before.stale) == (True, "stale (data changed)", False)
    assert [entry.text for entry in row.values] == [entry.text for entry in before.values], "what it said is shown"
    assert not any(entry.best for entry in row.values)
    score = next(
        entry.text for entry, column in zip(row.values, table.columns, strict=True) if column.value == "global"
    )
    assert f"~~{score}~~" in markdown.render(table)
    assert rf"{{\color{{black!50}}{score}}}" in latex.render(table)
    assert csv_file.render(table).splitlines()[1 + BEST].count("stale (data changed)") == 1
    out = io.StringIO()
    print_summary(Console(file=out, width=300, force_terminal=True), table)
    line = next(line for line in out.getvalue().splitlines() if "stale (data changed)" in line)
    assert "\x1b[2m" in line, "dim"
    groups = rows_of(case.spec, case.cells, case.records, reasons)
    page = html.page(case.spec, table, groups, ExampleScores(None), tmp_path / "none.html")
    assert page is not None
    assert re.search(rb'<tr class="stale" data-row="9">', page)
    assert any(note.startswith("Stale: data changed (1 cell) since these cells ran.") for note in table.footnotes)


def test_a_stale_row_counts_nowhere(stale: tuple[Case, dict[str, str]]) -> None:
    case, reasons = stale
    groups = rows_of(case.spec, case.cells, case.records, reasons)
    for metric in (metrics.get("global"), metrics.get("params")):
        assert BEST not in mark_best(groups, metric, ExampleScores(None)).best
    plot = build_plot(case.spec, case.scale, groups, ExampleScores(None))
    assert len(plot.panels[0].measured) == 9
    assert any("stale (data changed)" in failure for failure in plot.failures)


def test_a_stale_record_has_no_say_in_baselines_and_notes_but_keeps_its_warning(
    stale: tuple[Case, dict[str, str]],
) -> None:
    case, reasons = stale
    other = accuracy(20, 30, n_open=50, n_closed=50)
    overlap = Overlap(same=12, n=1061, images="contents")
    changes = {"accuracy": other, "notes": ["3 files left out"], "overlap": overlap}
    case.put(BEST, case.records[case.cells[BEST].cell_id].model_copy(update=changes))
    for why, baselines, noted in (({}, 2, True), (reasons, 1, False)):
        assert len(baselines_of(rows_of(case.spec, case.cells, case.records, why))) == baselines
        table = build_table(case.spec, case.scale, case.cells, case.records, None, why)
        assert any("3 files left out" in note for note in table.footnotes) == noted
        assert table.rows[BEST].warning == "12 of 1,061 test examples are also in training"


def with_environment(record: CellRecord, **changes: Any) -> CellRecord:
    return record.model_copy(update={"environment": record.environment | changes})


def test_mixed_versions_and_commits_get_a_footnote(demo: Case) -> None:
    demo.fill(cuda=False)
    usual = {"versions": {"torch": "2.14.1", "peft": "0.21.2"}, "git": {"commit": "a" * 40, "dirty": False}}
    for index, cell in enumerate(demo.cells):
        demo.put(index, with_environment(demo.records[cell.cell_id], **usual))
    assert not any("different versions" in note for note in demo.table().footnotes)
    other = {"versions": {"torch": "2.15.0", "peft": "0.21.2"}, "git": {"commit": "b" * 40, "dirty": True}}
    demo.put(0, with_environment(demo.records[demo.cells[0].cell_id], **other))
    assert (
        "The cells ran with different versions: torch 2.14.1 (9 cells), 2.15.0 (1 cell); commit of this program "
        "aaaaaaaa (9 cells), bbbbbbbb with changes (1 cell)."
    ) in demo.table().footnotes


def test_the_rule_is_the_runner_s_and_without_the_data_the_newest_record_decides(
    demo: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = inputs.inputs_of(demo.cells)
    for index, cell in enumerate(demo.cells):
        digests = {"data_digest": now[cell.cell_id].data_digest, "weights_digest": now[cell.cell_id].weights_digest}
        demo.fill(cuda=False) if not index else None
        demo.put(
            index, demo.records[cell.cell_id].model_copy(update=digests | {"finished_at": f"2026-01-0{1 + index % 9}"})
        )
    assert inputs.stale(demo.cells, demo.records) == {}
    old = demo.records[demo.cells[3].cell_id].model_copy(update={"data_digest": "0" * 64, "finished_at": "2025"})
    demo.put(3, old)
    assert inputs.stale(demo.cells, demo.records) == {old.cell_id: "data changed"}

    def gone(_: object) -> str:
        raise DataError("the data are not here")

    monkeypatch.setattr("bench.execution.inputs.data_digest", gone)
    assert inputs.stale(demo.cells, demo.records) == {old.cell_id: "data changed"}, "all others say otherwise"
    assert inputs.stale(demo.cells[3:4], demo.records) == {}, "nothing can be said of one record alone"

"""The best of a column: what is marked, what is not, and what the footnote says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import metrics
from bench.analysis.best import BestMarks, mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import rows_of
from bench.report import build_table
from bench.spec.cell import Cell
from bench.spec.sections import Column
from tests.report.answers import answered
from tests.report.conftest import Case, entry


@pytest.fixture
def case(demo: Case, tmp_path: Path) -> Case:
    """Ten cells that get 60, and 2, 4, ... 18 more questions wrong than the best, and no other."""
    for i, cell in enumerate(demo.cells):
        demo.put(i, answered(tmp_path, cell, [question >= 60 + 2 * i for question in range(200)], closed=100))
    return demo


def marks(case: Case, folder: Path | None, cells: list[Cell] | None = None) -> BestMarks:
    rows = rows_of(case.spec, cells or case.cells, case.records)
    return mark_best(rows, metrics.get("global"), ExampleScores(folder))


def test_what_is_statistically_tied_with_the_best_is_marked(case: Case, tmp_path: Path) -> None:
    """12 more wrong: p = 2 * 0.5 ** 12 = 0.00049, and Holm asks for 0.05 / 43 = 0.0012; 10 more: 0.0020."""
    found = marks(case, tmp_path)
    assert (set(found.best), found.pairs, set(found.kinds)) == (set(range(6)), 45, {"mcnemar"})


def test_rows_of_other_data_are_compared_among_themselves(case: Case, tmp_path: Path) -> None:
    other = case.cells[0].data.model_copy(update={"test_limit": 7})
    cells = [*case.cells[:2], *(cell.model_copy(update={"data": other}) for cell in case.cells[2:])]
    found = marks(case, tmp_path, cells)
    assert 2 in found.best, "the best of its data, though the first two are better"
    assert 0 not in found.best, "2 more wrong of 200 are not significant"
    assert found.pairs == 1 + 28


def test_without_predictions_the_tests_have_less_power(case: Case) -> None:
    found = marks(case, None)
    assert (len(found.best), list(found.kinds)) == (0, ["unpaired"])


def test_the_footnote_names_the_tests(case: Case, tmp_path: Path) -> None:
    table = build_table(case.spec, case.scale, case.cells, case.records, ExampleScores(tmp_path))
    assert (
        "Bold: the best value and all that cannot be told from it at the 5 % level (exact McNemar test on the same "
        "examples; Holm's correction for the 45 pairs of cells). With one seed a test does not know what another "
        "would change. Nothing is bold where no cell can be told from the best."
    ) in table.footnotes
    assert entry(table, 0, "global").low == pytest.approx(63.32, abs=0.01)


def test_a_column_of_unknown_noise_is_not_marked(case: Case) -> None:
    case.respec(columns=[Column(value="train_time"), Column(value="memory")])
    table = case.fill().table()
    assert [row.values[1].best for row in table.rows if not row.baseline] == [False] * 10
    assert "No best value marked, as one run does not tell its noise: Training time (s)." in table.footnotes
    assert [row.values[2].best for row in table.rows if not row.baseline] == [True] + [False] * 9
    assert any(note.startswith("Bold: the best value (Memory (GiB)") for note in table.footnotes)


def test_noise_is_rarely_bold(demo: Case, tmp_path: Path) -> None:
    """Ten cells of the same skill: in 60 tables at most 6 leave a cell unmarked (3 expected)."""
    rng, marked = np.random.default_rng(5), 0
    for _ in range(60):
        hard = rng.random(150)
        for i, cell in enumerate(demo.cells):
            demo.put(i, answered(tmp_path, cell, (rng.random(150) < hard).tolist()))
        marked += bool(marks(demo, tmp_path).best)
    assert marked <= 6

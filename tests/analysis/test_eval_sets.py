"""A table of several tasks or test sets: each has its own baselines, best values and Pareto front."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.analysis.rows import eval_sets, rows_of
from bench.records.costs import Params
from bench.records.record import CellRecord
from bench.records.scores import Score
from bench.report.pareto import build_plot
from bench.spec.cell import Cell
from bench.spec.sections import Column
from tests.factories import load_cells, make_record
from tests.report.conftest import Case, entry


@pytest.fixture
def two(root: Path) -> Case:
    """Three cells of a language model and three of an image model, with records."""
    spec, cells = load_cells(root / "specs/examples/all_methods.yaml", "default")
    of = {name: [cell for cell in cells if cell.labels["variant"] == name][:3] for name in ("llama", "vit")}
    case = Case(spec, [*of["llama"], *of["vit"]])
    for i, cell in enumerate(case.cells):
        case.put(i, record(cell, correct=(40, 60, 50)[i % 3], params=i % 3 + 1))
    return case


def record(cell: Cell, *, correct: int, params: int) -> CellRecord:
    label = cell.task.name == "image_classification"
    main, n = ("accuracy", 364) if label else ("exact_match", 210)
    return make_record(
        cell,
        accuracy=None,
        task=cell.task.name,
        scores={main: Score.share(correct, n)},
        baselines={"majority": {main: Score.share(37 if label else 70, n)}},
        params=Params(trainable=params, total=100, pct=float(params), stored=params, by_part={}),
    )


def test_an_eval_set_is_a_task_and_a_test_set(two: Case, paper: Case) -> None:
    sets = eval_sets(rows_of(two.spec, two.cells, two.records))
    assert [(one.name, one.task, len(one.rows)) for one in sets] == [
        ("llama", "text_generation", 3), ("vit", "image_classification", 3),
    ]  # fmt: skip
    assert sets[1].short("F-T variant=vit") == "F-T"
    (one,) = eval_sets(rows_of(paper.spec, paper.cells, {}))
    assert (one.name, dict(one.distinguishing_labels), len(one.rows)) == ("", {}, 10)
    less = paper.cells[1].data.model_copy(update={"train_limit": 100})
    fewer = paper.cells[2].data.model_copy(update={"test_limit": 100})
    data = [paper.cells[0].data, less, fewer]
    cells = [cell.model_copy(update={"data": d}) for cell, d in zip(paper.cells[:3], data, strict=True)]
    assert [len(one.rows) for one in eval_sets(rows_of(paper.spec, cells, {}))] == [2, 1]


def test_each_has_its_baselines_in_the_table(two: Case) -> None:
    table = two.table()
    rows = {row.label: i for i, row in enumerate(table.rows) if row.baseline}
    assert list(rows) == ["Most common answer, llama", "Majority class, vit"]
    assert [entry(table, i, "score").text for i in rows.values()] == ["33.33", "10.16"]
    assert not any("baselines differ" in note for note in table.footnotes)
    two.respec(columns=[Column(value="variant"), Column(value="accuracy")])
    table = two.table()
    assert [entry(table, i, "accuracy").text for i in (6, 7)] == ["", "10.16"], "of the task that has the metric"


def test_each_has_its_front(two: Case) -> None:
    plot = build_plot(two.spec, two.scale, rows_of(two.spec, two.cells, two.records))
    assert [panel.y_label for panel in plot.panels] == ["Score (%), llama", "Score (%), vit"]
    assert [panel.baseline for panel in plot.panels] == [pytest.approx(100 / 3), pytest.approx(3700 / 364)]
    assert [panel.baseline_label for panel in plot.panels] == ["Most common answer", "Majority class"]
    assert not any("variant" in point.label for panel in plot.panels for point in panel.measured)
    llama, vit = ([point.on_front for point in panel.measured] for panel in plot.panels)
    assert llama == [False, False, False], "none is above the baseline"
    assert vit == [True, True, False]


def test_a_score_that_a_task_lacks_is_not_asked_of_it(two: Case) -> None:
    two.respec(pareto=two.spec.pareto.model_copy(update={"score": "macro_f1"}))
    plot = build_plot(two.spec, two.scale, rows_of(two.spec, two.cells, two.records))
    assert [panel.y_label for panel in plot.panels] == ["Exact match (%), llama", "Macro F1 (%), vit"]

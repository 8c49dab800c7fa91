"""Front, fall-back of the cost, and what the plot is told."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import rows_of
from bench.records.record import Status, Time
from bench.report.pareto import build_plot
from bench.report.pareto_plot import COLUMN, MEASURED, Panel, Plot, PlotPoint, draw
from bench.spec.sections import ParetoSettings
from tests.factories import accuracy, failed_record, load_cells, make_estimate, make_record
from tests.report.answers import answered
from tests.report.conftest import Case


def drawn_of(case: Case, examples: ExampleScores | None = None) -> Plot:
    return build_plot(case.spec, case.scale, rows_of(case.spec, case.cells, case.records), examples)


def plot(case: Case) -> Panel:
    """The one panel of a cost and a score."""
    (panel,) = drawn_of(case).panels
    return panel


def test_measured_and_published_points(paper: Case) -> None:
    drawn = plot(paper.fill())
    assert (drawn.x_label, drawn.y_label) == ("Memory (GiB)", "Global accuracy (%)")
    assert len(drawn.measured) == len(drawn.published) == 10
    assert drawn.published[0] == PlotPoint(label="F-LoRA-LoRA rank=4", x=5.19, y=20.34)
    assert {p.label for p in drawn.published if not p.on_front} == {
        "F-LoRA-LoRA rank=4", "F-LoRA-LoRA rank=8", "LoRA-LoRA-LoRA rank=4", "LoRA-LoRA-LoRA rank=8",
    }, "the first two are no better than the question alone"  # fmt: skip
    assert drawn.baseline == pytest.approx(100 * 575 / 1061)
    assert not drawn.x_log
    assert drawn_of(paper).tag == ""


def test_a_cost_that_was_not_measured_is_replaced_and_told(paper: Case) -> None:
    drawn = plot(paper.fill(cuda=False))
    assert drawn.x_label == "#Params (%) (memory was not measured)"
    assert drawn.published[0].x == 0.163
    assert drawn.x_log


def test_the_chosen_metrics_are_plotted(paper: Case) -> None:
    paper.respec(pareto=ParetoSettings(cost="samples_per_s", score="closed"))
    drawn = plot(paper.fill())
    assert (drawn.x_label, drawn.y_label) == ("Samples/s", "Closed accuracy (%)")
    assert not drawn.lower_cost_is_better
    assert drawn.published == []
    assert drawn.baseline == pytest.approx(100 * 252 / 355)


def test_cells_that_failed_or_do_not_fit_are_listed_not_drawn(paper: Case) -> None:
    paper.fill().put(8, failed_record(paper.cells[8], Status.OOM, "train", 3))
    record = failed_record(paper.cells[7], Status.SKIPPED).model_copy(update={"estimate": make_estimate(25.5)})
    paper.put(7, record)
    del paper.records[paper.cells[9].cell_id]
    drawn = plot(paper)
    listed = drawn_of(paper).failures
    assert [words.partition(": ")[2] for words in listed] == ["skipped (needs ≈ 26.25 GiB)", "OOM (train, step 3)"]
    assert (len(drawn.measured), len(drawn.published), drawn.predicted) == (7, 10, [])


def test_nothing_measured_shows_the_paper_alone_and_a_score_of_zero_is_drawn(paper: Case) -> None:
    drawn = plot(paper)
    assert drawn.measured == []
    assert (drawn.x_label, len(drawn.published), drawn.baseline) == ("Memory (GiB)", 10, None)
    paper.put(0, make_record(paper.cells[0], accuracy=accuracy(0, 0)))
    assert plot(paper).measured[0].y == 0.0


def test_a_cost_that_was_not_measured_is_predicted_and_told(paper: Case) -> None:
    for i, cell in enumerate(paper.cells):
        paper.put(i, make_record(cell, i, cuda=False, estimate=make_estimate(5.0 + i)))
    drawn = plot(paper)
    assert drawn.x_label == "Memory (GiB), predicted for a CUDA GPU"
    assert drawn.measured == []
    assert [point.x for point in drawn.predicted] == [5.0 + i for i in range(10)]
    assert [point.on_front for point in drawn.predicted] == [False] * 6 + [True] * 4, "six are not above the floor"
    assert drawn.published[0].x == 5.19


def test_measured_and_predicted_costs_are_different_series(paper: Case) -> None:
    drawn = plot(paper.fill(estimate=make_estimate(5.0)))
    assert (drawn.x_label, drawn.predicted) == ("Memory (GiB)", []), "a measured cost is not predicted"
    paper.put(9, make_record(paper.cells[9], cuda=False, estimate=make_estimate(1.0)))
    drawn = plot(paper)
    assert drawn.x_label == "Memory (GiB), measured (filled) or predicted (hollow)"
    assert (len(drawn.measured), len(drawn.predicted)) == (9, 1)
    assert drawn.predicted[0].x == 1.0
    assert drawn.measured[6].on_front, "a prediction beats no measurement"
    axes = draw(drawn_of(paper)).axes[0]
    style = {line.get_label(): line for line in axes.get_lines()}
    measured, predicted = style["Measured"], style["Cost predicted"]
    assert measured.get_marker() == predicted.get_marker() == "o"
    assert (measured.get_color(), measured.get_markerfacecolor()) == (MEASURED, MEASURED)
    assert (predicted.get_color(), predicted.get_markerfacecolor()) == (MEASURED, "white")
    assert paper.cells[9].label in {text.get_text() for text in axes.texts}


def test_a_demo_is_tagged_and_keeps_its_cost(demo: Case) -> None:
    drawn = drawn_of(demo.fill(cuda=False, estimate=make_estimate(5.0)))
    assert drawn.tag == "DEMO"
    assert drawn.subtitle.startswith("Scale: demo")
    assert (drawn.panels[0].x_label, drawn.panels[0].predicted) == ("#Params (%)", [])


def answers(right: int, n: int = 400) -> list[bool]:
    return [i < right for i in range(n)]


def test_noise_and_floor_decide_who_is_on_the_front(demo: Case, tmp_path: Path) -> None:
    """By parameters, from few to many: the floor is at 45.75 %, 183 of 400."""
    for i, right in enumerate((183, 240, 238, 220, 300)):
        demo.put(i, answered(tmp_path, demo.cells[i], answers(right), params=make_record(demo.cells[i], i).params))
    points = drawn_of(demo, ExampleScores(tmp_path)).panels[0].measured
    assert [p.on_front for p in points] == [False, True, False, False, True]
    assert [p.within_noise for p in points] == [False, False, True, False, False], "2 of 400 are noise, 20 are not"
    assert points[1].y_low == pytest.approx(55.1, abs=0.1)
    assert points[1].y_high == pytest.approx(64.7, abs=0.1)
    assert points[1].x_low is None, "the number of parameters is exact"


def test_seeds_give_costs_an_interval(root: Path) -> None:
    spec, cells = load_cells(root / "specs" / "table1.yaml", seeds=[1, 2, 3])
    case = Case(spec.model_copy(update={"pareto": ParetoSettings(cost="step_time")}), cells)
    for i, seconds in enumerate((0.10, 0.12, 0.13)):
        case.put(i, make_record(cells[i], time=Time(step_median_s=seconds)))
    point = plot(case).measured[0]
    assert point.x_low is not None
    assert point.x_high is not None
    assert point.x_low < point.x < point.x_high


def test_a_front_over_several_costs_and_scores(paper: Case) -> None:
    """Dear in memory and no better in open, but the fastest: on the front of all four."""
    paper.respec(pareto=ParetoSettings(costs=["memory", "step_time"], scores=["open", "closed"]))
    for i, (open_, closed, seconds) in enumerate(((500, 300, 0.2), (400, 280, 0.1), (400, 200, 0.3))):
        scored = accuracy(open_, closed)
        paper.put(i, make_record(paper.cells[i], i, accuracy=scored, time=Time(step_median_s=seconds)))
    panels = drawn_of(paper).panels
    assert [(p.x_label, p.y_label) for p in panels] == [
        ("Memory (GiB)", "Open accuracy (%)"), ("Step (ms)", "Open accuracy (%)"),
        ("Memory (GiB)", "Closed accuracy (%)"), ("Step (ms)", "Closed accuracy (%)"),
    ]  # fmt: skip
    assert not any(panel.front_line for panel in panels)
    assert all([p.on_front for p in panel.measured] == [True, True, False] for panel in panels)
    figure = draw(drawn_of(paper), COLUMN)
    assert len(figure.axes) == 4
    assert figure.get_figwidth() == pytest.approx(3.3)


def test_the_floor_of_several_scores_is_passed_in_one(paper: Case) -> None:
    paper.respec(pareto=ParetoSettings(scores=["open", "closed"]))
    paper.put(0, make_record(paper.cells[0], accuracy=accuracy(0, 300)))
    paper.put(1, make_record(paper.cells[1], 1, accuracy=accuracy(0, 252)))
    assert [p.on_front for p in drawn_of(paper).panels[0].measured] == [True, False]


def test_failed_cells_stand_at_the_edge_in_every_style(paper: Case) -> None:
    paper.fill().put(8, failed_record(paper.cells[8], Status.OOM, "train", 3))
    for style in (None, COLUMN):
        axes = draw(drawn_of(paper), style).axes[0]
        crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
        assert [np.asarray(line.get_xdata()).tolist() for line in crosses] == [[1.0]]
        assert "T-T-LoRA rank=4: OOM (train, step 3)" in {text.get_text() for text in axes.texts}


def test_a_long_failure_is_wrapped_into_the_list_beside_the_plot(paper: Case) -> None:
    paper.fill()
    for i in (0, 1, 9):
        paper.put(i, failed_record(paper.cells[i], Status.CRASHED, "train", 1_234_567))
    figure = draw(drawn_of(paper))
    told = [text for text in figure.axes[0].texts if "crashed" in text.get_text()]
    assert len(told) == 3
    assert all("\n" in text.get_text() for text in told)
    boxes = [text.get_window_extent() for text in told]
    assert all(box.x1 < figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))

"""Front, fall-back of the cost, and what the plot is told."""

from __future__ import annotations

import itertools
import random

import pytest

from bench import metrics
from bench.record import Status
from bench.report.draw import MEASURED, Plot, Point, draw
from bench.report.groups import group_cells
from bench.report.pareto import build_plot, front
from bench.spec.models import ParetoSettings
from tests.factories import accuracy, failed_record, make_estimate, make_record
from tests.report.conftest import Case


def plot(case: Case) -> Plot:
    return build_plot(case.spec, case.scale, group_cells(case.spec, case.cells, case.records))


@pytest.mark.parametrize(("cost", "score"), [*itertools.product(["memory", "samples_per_s"], ["global", "loss"])])
def test_front_is_what_nothing_beats(cost: str, score: str) -> None:
    rng = random.Random(0)
    points = [Point(label=str(i), x=rng.randrange(8), y=rng.randrange(8)) for i in range(40)]
    x = 1 if cost == "memory" else -1
    y = 1 if score == "global" else -1
    wanted = {
        p.label
        for p in points
        if not any(x * q.x <= x * p.x and y * q.y >= y * p.y and (q.x, q.y) != (p.x, p.y) for q in points)
    }
    found = front(points, metrics.get(cost), metrics.get(score))
    assert [p.label for p in found] == [p.label for p in points]
    assert {p.label for p in found if p.on_front} == wanted


def test_measured_and_published_points(paper: Case) -> None:
    drawn = plot(paper.fill())
    assert (drawn.x_label, drawn.y_label) == ("Memory (GiB)", "Global accuracy (%)")
    assert len(drawn.measured) == len(drawn.published) == 10
    assert drawn.published[0] == Point(label="F-LoRA-LoRA rank=4", x=5.19, y=20.34, on_front=True)
    assert {p.label for p in drawn.published if not p.on_front} == {
        "F-LoRA-LoRA rank=8", "LoRA-LoRA-LoRA rank=4", "LoRA-LoRA-LoRA rank=8",
    }  # fmt: skip
    assert drawn.baseline == pytest.approx(100 * 575 / 1061)
    assert not drawn.x_log
    assert drawn.tag == ""


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


def test_cells_that_failed_are_listed_not_drawn(paper: Case) -> None:
    paper.fill().put(8, failed_record(paper.cells[8], Status.OOM, "train", 3))
    del paper.records[paper.cells[9].cell_id]
    drawn = plot(paper)
    assert drawn.failures == ["T-T-LoRA rank=4: OOM (train, step 3)"]
    assert len(drawn.measured) == 8
    assert len(drawn.published) == 10


def test_nothing_measured_shows_the_paper_alone(paper: Case) -> None:
    drawn = plot(paper)
    assert drawn.measured == []
    assert (drawn.x_label, len(drawn.published), drawn.baseline) == ("Memory (GiB)", 10, None)


def test_a_score_of_zero_is_drawn(paper: Case) -> None:
    paper.put(0, make_record(paper.cells[0], accuracy=accuracy(0, 0)))
    assert plot(paper).measured[0].y == 0.0


def test_a_demo_is_tagged(demo: Case) -> None:
    drawn = plot(demo.fill(cuda=False))
    assert drawn.tag == "DEMO"
    assert drawn.subtitle.startswith("Scale: demo")


def test_a_cost_that_was_not_measured_is_predicted_and_told(paper: Case) -> None:
    for i, cell in enumerate(paper.cells):
        paper.put(i, make_record(cell, i, cuda=False, estimate=make_estimate(5.0 + i)))
    drawn = plot(paper)
    assert drawn.x_label == "Memory (GiB), predicted for a CUDA GPU"
    assert drawn.measured == []
    assert [point.x for point in drawn.predicted] == [5.0 + i for i in range(10)]
    assert all(point.on_front for point in drawn.predicted)
    assert drawn.published[0].x == 5.19


def test_measured_and_predicted_costs_are_different_series(paper: Case) -> None:
    paper.fill(estimate=make_estimate(5.0)).put(9, make_record(paper.cells[9], cuda=False, estimate=make_estimate(1.0)))
    drawn = plot(paper)
    assert drawn.x_label == "Memory (GiB), measured (filled) or predicted (hollow)"
    assert (len(drawn.measured), len(drawn.predicted)) == (9, 1)
    assert drawn.predicted[0].x == 1.0
    assert drawn.measured[0].on_front, "a prediction beats no measurement"


def test_a_measured_cost_is_not_predicted(paper: Case) -> None:
    drawn = plot(paper.fill(estimate=make_estimate(5.0)))
    assert (drawn.x_label, drawn.predicted) == ("Memory (GiB)", [])


def test_a_cell_that_does_not_fit_is_listed_with_what_it_needs(paper: Case) -> None:
    record = failed_record(paper.cells[8], Status.SKIPPED).model_copy(update={"estimate": make_estimate(25.5)})
    paper.fill().put(8, record)
    drawn = plot(paper)
    assert drawn.failures == ["T-T-LoRA rank=4: skipped (needs ≈ 26.25 GiB)"]
    assert drawn.predicted == []


def test_predicted_costs_have_hollow_markers(paper: Case) -> None:
    paper.fill(estimate=make_estimate(5.0)).put(9, make_record(paper.cells[9], cuda=False, estimate=make_estimate(1.0)))
    axes = draw(plot(paper)).axes[0]
    style = {line.get_label(): line for line in axes.get_lines()}
    measured, predicted = style["Measured"], style["Cost predicted"]
    assert measured.get_marker() == predicted.get_marker() == "o"
    assert (measured.get_color(), measured.get_markerfacecolor()) == (MEASURED, MEASURED)
    assert (predicted.get_color(), predicted.get_markerfacecolor()) == (MEASURED, "white")
    assert paper.cells[9].label in {text.get_text() for text in axes.texts}


def test_the_demo_keeps_its_cost(demo: Case) -> None:
    drawn = plot(demo.fill(cuda=False, estimate=make_estimate(5.0)))
    assert (drawn.x_label, drawn.predicted) == ("#Params (%)", [])

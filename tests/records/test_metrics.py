"""Every metric: null stays null, zero stays zero, units are those of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import metrics
from bench.errors import SpecError
from bench.records.costs import Flops, Params
from bench.records.record import CellRecord, LossPoint, Memory, PhaseMemory, Status, Time
from bench.records.scores import Accuracy, Score, Share
from bench.spec.cell import Cell
from tests.factories import GIB, accuracy, load_cells, make_estimate, make_record


@pytest.fixture(scope="module")
def cell(root: Path) -> Cell:
    return load_cells(root / "specs" / "table1.yaml")[1][0]


def value(name: str, record: CellRecord) -> float | None:
    return metrics.get(name).value(record)


def bare(cell: Cell) -> CellRecord:
    """A record of a cell that failed before anything was measured."""
    nothing: dict[str, Any] = {"params": None, "accuracy": None, "energy_j": None, "memory": Memory(), "time": Time()}
    return make_record(cell, status=Status.CRASHED, **nothing)


@pytest.mark.parametrize("name", metrics.names())
def test_what_was_not_measured_is_null(cell: Cell, name: str) -> None:
    assert value(name, bare(cell)) is None


def test_zero_is_a_value(cell: Cell) -> None:
    phase = PhaseMemory(allocated_peak_bytes=0, reserved_peak_bytes=0)
    record = make_record(
        cell,
        params=Params(trainable=0, total=100, pct=0.0, stored=0, by_part={}),
        accuracy=accuracy(0, 0),
        memory=Memory(train=phase, eval=phase, nvml_process_peak_bytes=0, host_rss_peak_bytes=0),
        time=Time(train_s=0, eval_s=0, step_median_s=0, step_p95_s=0, samples_per_s=0),
        energy_j=0.0,
        adapter_bytes=0,
        loss_curve=[LossPoint(step=1, loss=0.0, lr=0.0)],
        estimate=make_estimate(0.0, flops=Flops(train_forward=0, train_backward=0, train_step=0, eval_sample=0)),
    )
    relative = ("over_prior", "memory_error", "memory_reserved_error")
    others = metrics.task_scores().keys() - set(metrics.of_task(None))
    zero = {name: value(name, record) for name in metrics.names() if name not in {*relative, *others}}
    assert zero == dict.fromkeys(zero, 0.0)
    assert value("memory_error", record) is None, "no error relative to nothing"
    assert value("over_prior", record) == pytest.approx(-100 * 575 / 1061)


def test_units(cell: Cell) -> None:
    phase = PhaseMemory(allocated_peak_bytes=3 * GIB // 2, reserved_peak_bytes=2 * GIB)
    record = make_record(
        cell,
        params=Params(trainable=1_500_000, total=6_000_000, pct=25.0, stored=500_000, by_part={}),
        accuracy=accuracy(353, 180),
        memory=Memory(train=phase, nvml_process_peak_bytes=3 * GIB),
        time=Time(train_s=12.5, step_median_s=0.25),
        energy_j=1500.0,
        adapter_bytes=2_500_000,
    )
    wanted = {
        "params": 25.0, "params_trainable": 1.5, "params_stored": 0.5, "adapter_size": 2.5,
        "memory": 1.5, "memory_reserved": 2.0, "memory_nvml": 3.0,
        "train_time": 12.5, "step_time": 250.0, "energy": 1.5,
        "open": 50.0, "closed": 100 * 180 / 355, "global": 100 * 533 / 1061,
    }  # fmt: skip
    assert {name: value(name, record) for name in wanted} == pytest.approx(wanted)


def test_a_share_knows_numerator_and_denominator(cell: Cell) -> None:
    record = make_record(cell, accuracy=accuracy(10, 20))
    scores = {name: metrics.get(name).score for name in ("open", "closed", "global", "memory")}
    assert {name: score and score(record) for name, score in scores.items()} == {
        "open": Score.share(10, 706), "closed": Score.share(20, 355),
        "global": Score.share(30, 1061), "memory": None,
    }  # fmt: skip


def test_a_share_of_no_questions_is_null(cell: Cell) -> None:
    none, some = Share(correct=0, n=0), Share(correct=1, n=2)
    record = make_record(cell, accuracy=Accuracy(open=none, closed=some, overall=some))
    assert [value(name, record) for name in ("open", "closed", "over_prior")] == [None, 50.0, None]


@pytest.mark.parametrize(
    ("name", "printed", "wanted"),
    [("params", "0.163%", 0.163), ("memory", "5.19GB", 5.19), ("memory", "26.63 GiB", 26.63), ("global", 0, 0.0),
     ("open", "50.70", 50.7), ("open", None, None)],
)  # fmt: skip
def test_published_values_as_papers_print_them(name: str, printed: object, wanted: float | None) -> None:
    assert metrics.get(name).published(printed) == wanted


def test_what_is_no_number_or_no_metric_is_refused() -> None:
    with pytest.raises(SpecError, match=r"published memory 'lots' is not a number"):
        metrics.get("memory").published("lots")
    with pytest.raises(SpecError, match=r"unknown metric 'memroy'; did you mean 'memory'\?"):
        metrics.get("memroy")


def test_directions() -> None:
    higher = {name for name in metrics.names() if metrics.get(name).direction == "higher"}
    assert higher == {"samples_per_s", "over_prior", "score", *metrics.task_scores()}


def test_predictions_are_of_the_same_quantity(cell: Cell) -> None:
    record = make_record(cell, memory=Memory(), estimate=make_estimate(4.0))
    wanted = {"memory": 4.0, "memory_reserved": 4.25, "memory_nvml": 4.75, "memory_eval": 1.0}
    found = {name: metrics.get(name).predicted for name in metrics.names()}
    assert {name: predicted(record) for name, predicted in found.items() if predicted} == wanted
    assert {name: predicted(bare(cell)) for name, predicted in found.items() if predicted} == dict.fromkeys(wanted)
    assert {name: value(name, record) for name in wanted} == dict.fromkeys(wanted)
    refused = make_record(cell, estimate=make_estimate(memory=None))
    assert value("memory_predicted", refused) is None


def test_what_an_estimate_adds(cell: Cell) -> None:
    phase = PhaseMemory(allocated_peak_bytes=5 * GIB, reserved_peak_bytes=17 * GIB)
    record = make_record(cell, memory=Memory(train=phase), estimate=make_estimate(4.0))
    wanted = {"flops": 2.0, "memory_predicted": 4.0, "memory_error": -20.0, "memory_reserved_error": -75.0}
    assert {name: value(name, record) for name in wanted} == pytest.approx(wanted)
    failed = record.model_copy(update={"status": Status.OOM})
    assert value("memory_error", failed) is None, "its peak was still to come"
    assert value("memory_predicted", failed) == 4.0


def test_an_estimate_knows_the_exact_parameters_of_a_cell_that_did_not_run(cell: Cell) -> None:
    record = bare(cell).model_copy(update={"estimate": make_estimate()})
    wanted = {"params": 25.0, "params_trainable": 0.5, "params_stored": 0.5, "adapter_size": 2.0}
    assert {name: value(name, record) for name in wanted} == wanted
    ran = make_record(cell, adapter_bytes=0, estimate=make_estimate())
    assert value("adapter_size", ran) == 0.0
    assert value("params", ran) != 25.0

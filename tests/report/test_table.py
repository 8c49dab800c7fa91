"""What stands in the table: order, aggregation, failures, baselines, marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import SpecError
from bench.format import DASH, MINUS, PREDICTED
from bench.records.record import CellRecord, Memory, Status
from bench.report.table import Table
from bench.spec.sections import Column
from tests.factories import accuracy, baselines, failed_record, load_cells, make_estimate, make_record
from tests.report.conftest import Case, entry


def texts(table: Table, row: int) -> list[str]:
    return [e.text for e in table.rows[row].values]


def test_columns_and_rows_are_in_the_order_of_the_spec(paper: Case) -> None:
    table = paper.fill().table()
    assert [c.header for c in table.columns] == [
        "ViT", "JTM", "Dec", "Rank", "#Params (%)", "Memory (GiB)", "Opened (%)", "Closed (%)", "Global (%)",
    ]  # fmt: skip
    assert [texts(table, i)[:4] for i in (0, 1, 9)] == [
        ["F", "LoRA", "LoRA", "4"], ["F", "LoRA", "LoRA", "8"], ["T", "T", "LoRA", "8"],
    ]  # fmt: skip
    assert texts(table, 0)[4:] == ["0.161", "5.20", "3.54", "50.70", "19.32"]
    assert not table.with_status
    assert "±" not in "".join(texts(table, 0))
    assert "1 seed (42)" in table.caption


def test_measured_published_and_deviation(paper: Case) -> None:
    memory = entry(paper.fill().table(), 2, "memory")
    assert (memory.text, memory.published_text, memory.deviation_text) == ("9.80", "26.63", f"{MINUS}16.83")
    assert memory.deviation == pytest.approx(9.8 - 26.63)
    paper.put(0, make_record(paper.cells[0], accuracy=accuracy(25, 180)))
    assert entry(paper.table(), 0, "closed").deviation_text == "0.00", "no sign where it rounds to zero"


def test_what_was_not_measured_is_a_dash_and_zero_is_zero(demo: Case) -> None:
    demo.fill(cuda=False, accuracy=accuracy(0, 0))
    table = demo.table()
    assert texts(table, 0)[5:] == [DASH, "0.00", "0.00", "0.00"]
    assert entry(table, 0, "memory").value is None
    assert entry(table, 0, "memory").published_text == "5.19"
    assert any("Not measured on this device: Memory (GiB)" in note for note in table.footnotes)


def test_notes_about_the_data_are_footnotes(paper: Case) -> None:
    paper.fill(notes=["2 files were left out"])
    assert paper.table().footnotes.count("slake: 2 files were left out.") == 1


def test_results_beside_other_processes_are_named(paper: Case) -> None:
    """What ran out of memory beside them, and what is timed beside them."""
    paper.fill()
    assert not any("Other processes" in note for note in paper.table().footnotes)
    paper.put(0, make_record(paper.cells[0], memory=Memory(foreign_bytes=30 * 2**30)))
    failed = failed_record(paper.cells[1], Status.OOM, "train", 3)
    paper.put(1, failed.model_copy(update={"memory": Memory(foreign_bytes=20 * 2**30)}))
    table = paper.table()
    first, second = (row.label for row in table.rows[:2])
    assert [row.status for row in table.rows[:2]] == ["", "OOM (train, step 3, beside other processes)"]
    [note] = [note for note in table.footnotes if "Other processes" in note]
    assert note.startswith(f"Other processes held up to 30.00 GiB of the GPU when cells started in {first}, {second}:")


def test_one_row_per_cell_over_its_seeds(root: Path) -> None:
    spec, cells = load_cells(root / "specs" / "table1.yaml", seeds=[1, 2, 3])
    case = Case(spec, cells)
    for i, correct in enumerate((351, 353, 358)):
        case.put(i, make_record(cells[i], accuracy=accuracy(correct, 180)))
    table = case.table()
    assert len([row for row in table.rows if not row.baseline]) == 10
    opened = entry(table, 0, "open")
    assert opened.text == "50.14 ± 0.51"
    assert opened.std == pytest.approx(0.5107, abs=1e-4)
    assert (opened.correct, opened.n) == (1062, 2118)
    assert table.rows[0].label == "F-LoRA-LoRA rank=4"
    assert table.rows[0].seeds == 3
    assert "±" not in entry(table, 0, "params").text
    assert "3 seeds (1, 2, 3, mean ± standard deviation)" in table.caption


def test_seeds_that_failed_are_told_and_not_averaged(root: Path) -> None:
    spec, cells = load_cells(root / "specs" / "table1.yaml", seeds=[1, 2, 3])
    case = Case(spec, cells)
    case.put(0, make_record(cells[0], accuracy=accuracy(353, 180)))
    case.put(1, failed_record(cells[1], Status.OOM, "train", 3))
    table = case.table()
    assert entry(table, 0, "open").text == "50.00"
    assert table.rows[0].status == "1 of 3 seeds; OOM (train, step 3); not run"


@pytest.mark.parametrize(
    ("status", "phase", "step", "said"),
    [
        (Status.OOM, "train", 3, "OOM (train, step 3)"),
        (Status.OOM, "eval", 2, "OOM (eval, batch 2)"),
        (Status.DIVERGED, "train", 0, "diverged (train, step 0)"),
        (Status.TIMEOUT, "load", None, "timeout (load)"),
        (Status.CRASHED, None, None, "crashed"),
        (Status.INTERRUPTED, None, None, "interrupted"),
        (Status.ERROR, "setup", None, "error: OutOfMemoryError (setup)"),
    ],
)
def test_a_cell_that_failed_keeps_its_row(
    paper: Case, status: Status, phase: str | None, step: int | None, said: str
) -> None:
    paper.fill().put(4, failed_record(paper.cells[4], status, phase, step))
    table = paper.table()
    assert table.rows[4].status == said
    assert texts(table, 4)[:4] == ["F", "T", "LoRA", "4"]
    assert texts(table, 4)[5:] == [DASH] * 4
    assert entry(table, 4, "params").text != DASH
    assert entry(table, 4, "global").published_text == "55.53†"
    assert table.with_status


def test_the_peak_before_running_out_of_memory_is_not_the_cell_s_memory(paper: Case) -> None:
    memory = make_record(paper.cells[0]).memory
    paper.put(0, failed_record(paper.cells[0], Status.OOM, "train", 3).model_copy(update={"memory": memory}))
    assert memory != Memory()
    assert entry(paper.table(), 0, "memory").text == DASH


def test_cells_not_run_yet_are_rows(paper: Case) -> None:
    table = paper.table()
    assert [row.status for row in table.rows] == ["not run"] * 10
    assert entry(table, 0, "global").published_text == "20.34†"
    assert "10 of 10 cells not run yet." in table.footnotes


def best(table: Table, column: str) -> list[int]:
    return [i for i in range(len(table.rows)) if entry(table, i, column).best]


def test_the_best_value_is_marked_in_its_direction_with_all_that_cannot_be_told_from_it(paper: Case) -> None:
    """Of 355 closed questions the last four cells answer 246, 257, 268 and 279."""
    table = paper.fill().table()
    assert {c: best(table, c) for c in ("params", "memory", "open", "closed", "global")} == {
        "params": [], "memory": [0], "open": [9], "closed": [6, 7, 8, 9], "global": [9],
    }  # fmt: skip
    assert "Holm's correction for the 45 pairs of cells" in table.footnotes[1]
    assert "With one seed a test does not know what another would change" in table.footnotes[1]


def test_what_is_equal_or_alone_is_marked_as_printed(paper: Case) -> None:
    for i, cell in enumerate(paper.cells):
        correct = (500, 500, 3)[min(i, 2)]
        paper.put(i, make_record(cell, accuracy=accuracy(correct, 100, 1_000_000, 355)))
    assert entry(paper.table(), 0, "open").text == "0.05"
    assert best(paper.table(), "open") == [0, 1]
    assert best(paper.table(), "closed") == [], "all equal: nothing to mark"
    paper.records.clear()
    paper.put(0, make_record(paper.cells[0]))
    paper.put(1, failed_record(paper.cells[1], Status.OOM, "train", 3))
    assert best(paper.table(), "global") == []


def test_baselines_stand_at_the_end(paper: Case) -> None:
    table = paper.fill().table()
    assert [row.label for row in table.rows[10:]] == ["Question only", "Always yes", "Always no"]
    assert texts(table, 10) == ["Question only", "", "", "", "", "", "45.75", "70.99", "54.19"]
    assert (entry(table, 12, "closed").correct, entry(table, 12, "closed").n) == (180, 355)
    assert not any("baselines differ" in note for note in table.footnotes)
    other = accuracy(3, 3).model_copy(update={"baselines": baselines(50, 60)})
    paper.put(3, make_record(paper.cells[3], accuracy=other))
    assert any("baselines differ" in note for note in paper.table().footnotes)


def test_the_rule_and_the_number_of_questions_are_stated(paper: Case) -> None:
    note = paper.fill().table().footnotes[0]
    assert "the gold answer is yes or no" in note
    assert "open n = 706, closed n = 355, global n = 1,061" in note


def test_a_demo_cannot_be_taken_for_the_paper(demo: Case, paper: Case) -> None:
    table = demo.fill(cuda=False).table()
    assert table.tag == "DEMO"
    assert "not comparable with published numbers" in table.caption
    assert "Scale: demo; model: miss tiny, weights bundled demo_miss; data: easy_vqa (test split)" in table.caption
    assert "1 seed (42); device: cpu" in table.caption
    assert paper.table().tag == ""


def test_devices_that_differ_are_told(paper: Case) -> None:
    paper.fill().put(0, make_record(paper.cells[0], cuda=False))
    table = paper.table()
    assert "device: NVIDIA A100, cpu" in table.caption
    assert any("different devices" in note for note in table.footnotes)


@pytest.mark.parametrize(
    ("columns", "shown", "row"),
    [
        ([], ["vit", "jtm", "dec", "rank", "params", "memory", "open", "closed", "global"], ["F", "LoRA", "LoRA", "8"]),
        (["methods.LoRA.r", "seed", "status"], ["methods.LoRA.r", "seed", "status"], ["8", "42", "not run"]),
        (["global"], ["cell", "global"], ["F-LoRA-LoRA rank=8", DASH]),
    ],
)
def test_columns_are_usual_ones_or_named_by_a_key_and_label_each_cell(
    paper: Case, columns: list[str], shown: list[str], row: list[str]
) -> None:
    paper.respec(columns=[Column(value=name) for name in columns])
    table = paper.table()
    assert [column.value for column in table.columns] == shown
    assert texts(table, 1)[: len(row)] == row
    assert table.with_status == ("status" not in columns)


def test_an_unknown_column_is_refused(paper: Case) -> None:
    paper.respec(columns=[Column(value="memroy")])
    with pytest.raises(SpecError, match="'memroy'; did you mean 'memory'"):
        paper.table()


def skipped(paper: Case, index: int, gib: float) -> CellRecord:
    """The record of a cell that a budget kept from running."""
    estimate = make_estimate(gib)
    record = failed_record(paper.cells[index], Status.SKIPPED)
    return record.model_copy(update={"estimate": estimate, "params": estimate.params, "environment": {}})


def test_memory_is_predicted_and_marked_only_where_it_was_not_measured(paper: Case) -> None:
    table = paper.fill(cuda=False, estimate=make_estimate(5.0)).table()
    memory = entry(table, 0, "memory")
    assert (memory.value, memory.predicted, memory.shows_prediction, memory.deviation) == (None, 5.0, True, None)
    assert (memory.text, memory.published_text, memory.deviation_text) == ("≈ 5.00", "5.19", f"≈ {MINUS}0.19")
    assert f"{PREDICTED} Predicted for a CUDA GPU, not measured: Memory (GiB)." in table.footnotes
    assert not any("Not measured on this device" in note for note in table.footnotes)
    assert not entry(table, 0, "params").shows_prediction
    table = paper.fill(estimate=make_estimate(5.0)).table()
    memory = entry(table, 0, "memory")
    assert (memory.text, memory.predicted, memory.shows_prediction) == ("5.20", 5.0, False)
    assert not any(PREDICTED in note for note in table.footnotes)
    failed = failed_record(paper.cells[0], Status.OOM, "train", 3)
    paper.put(0, failed.model_copy(update={"estimate": make_estimate(44.0)}))
    assert entry(paper.table(), 0, "memory").text == "≈ 44.00", "the peak until it failed is no measurement"


def test_a_prediction_is_never_the_best(paper: Case) -> None:
    paper.fill().put(0, make_record(paper.cells[0], cuda=False, estimate=make_estimate(0.5)))
    assert entry(paper.table(), 0, "memory").text == "≈ 0.50"
    assert best(paper.table(), "memory") == [1], "the lowest of those that were measured"
    for i, cell in enumerate(paper.cells):
        paper.put(i, make_record(cell, cuda=False, estimate=make_estimate(1.0 + i)))
    assert best(paper.table(), "memory") == []


def test_predictions_are_averaged_over_the_seeds_that_have_one(root: Path) -> None:
    spec, cells = load_cells(root / "specs" / "table1.yaml", seeds=[1, 2, 3])
    case = Case(spec, cells)
    case.put(0, make_record(cells[0], cuda=False, estimate=make_estimate(3.0)))
    case.put(1, make_record(cells[1], cuda=False, estimate=make_estimate(memory=None)))
    assert entry(case.table(), 0, "memory").text == "≈ 3.00"
    case.put(2, make_record(cells[2]))
    assert entry(case.table(), 0, "memory").text == "5.20"


def test_a_cell_that_does_not_fit_keeps_its_row(paper: Case) -> None:
    paper.fill(estimate=make_estimate(5.0)).put(9, skipped(paper, 9, 25.5))
    table = paper.table()
    assert table.rows[9].status == "skipped (needs ≈ 26.25 GiB)"
    assert texts(table, 9)[3:] == ["8", "25.000", "≈ 25.50", DASH, DASH, DASH]
    assert texts(table, 8)[5] == "23.60"
    assert not any("different devices" in note for note in table.footnotes)
    assert any(note.startswith(PREDICTED) for note in table.footnotes)


def test_the_estimate_has_columns_of_its_own(paper: Case) -> None:
    paper.respec(columns=[Column(value=name) for name in ("flops", "memory_predicted", "memory_error")])
    table = paper.fill(estimate=make_estimate(5.0)).table()
    assert [c.header for c in table.columns[1:]] == [
        "FLOPs per step (TFLOPs)", "Predicted memory (GiB)", "Memory error (%)",
    ]  # fmt: skip
    assert texts(table, 0)[1:] == ["2.00", "5.00", f"{MINUS}3.8"]

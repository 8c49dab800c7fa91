"""What counts as a change: exact costs, measured ones beyond their noise, scores by a paired test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.compare import Change, Comparison, compare, compare_with_cell
from bench.analysis.tolerances import CompareOptions, parse
from bench.errors import SpecError
from bench.records.record import Memory, PhaseMemory, Status, Time
from bench.sources import open_records
from bench.spec.cell import Cell
from tests.analysis.conftest import Folder, Right, half, near
from tests.factories import GIB, load_cells

REFERENCE = "F-LoRA-LoRA rank=4"


def compared(a: Folder, b: Folder, *tolerances: str, only: tuple[str, ...] = (), **options: Any) -> Comparison:
    allow_missing = options.pop("allow_missing", False)
    chosen = CompareOptions(tolerances=parse(tolerances), **options)
    with open_records(str(a)) as ours, open_records(str(b)) as theirs:
        return compare(ours, theirs, chosen, only=only, allow_missing=allow_missing)


def against(folder: Folder, label: str = REFERENCE, **options: Any) -> Comparison:
    with open_records(str(folder)) as source:
        return compare_with_cell(source, label, CompareOptions(), **options)


def change(found: Comparison, metric: str, row: int = 0) -> Change:
    return next(change for change in found.rows[row].changes if change.metric.name == metric)


def verdicts(found: Comparison, *names: str, row: int = 0) -> list[str]:
    return [change(found, name, row).verdict for name in names]


def memory(gib: float) -> Memory:
    phase = PhaseMemory(allocated_peak_bytes=int(gib * GIB), reserved_peak_bytes=int(gib * GIB))
    return Memory(train=phase, eval=phase)


def steps(median_ms: float, p95_ms: float) -> Time:
    return Time(step_median_s=median_ms / 1e3, step_p95_s=p95_ms / 1e3)


def losing(questions: int) -> Right:
    """Half, but for so many questions of both kinds that the first cell no longer answers."""
    kept = [question for question in range(200) if half(0, question)]
    lost = {*kept[: questions - questions // 2], *kept[len(kept) - questions // 2 :]}
    return lambda cell, question: half(cell, question) and not (cell == 0 and question in lost)


# --- two sets of records ---------------------------------------------------------------------------------------


def test_the_same_records_have_not_changed(a: Folder, b: Folder) -> None:
    found = compared(a.fill(), b.fill())
    assert (found.exit_code, found.missing, found.new) == (0, [], [])
    assert {verdict for row in found.rows for verdict in row.verdicts()} == {"within noise", "not measured"}
    assert change(found, "memory_nvml").verdict == "not measured"
    assert change(found, "global").p == 1


@pytest.mark.parametrize(("lost", "verdict", "code"), [(3, "within noise", 0), (30, "worse", 1)])
def test_scores_are_tested_question_by_question(a: Folder, b: Folder, lost: int, verdict: str, code: int) -> None:
    found = compared(a.fill(), b.fill(losing(lost)))
    one = change(found, "global")
    assert (one.change, one.verdict, one.reason) == (near(-lost / 2), verdict, "mcnemar")
    assert one.low is not None
    assert one.high is not None
    assert one.low < -lost / 2 < one.high
    assert found.exit_code == code
    assert change(found, "global", 1).verdict == "within noise"
    back = compared(b, a)
    assert (change(back, "global").verdict, back.exit_code) == ("better" if code else "within noise", 0)


def test_p_values_are_corrected_for_the_number_of_tests(a: Folder, b: Folder) -> None:
    """Seven questions lost and none won: p = 0.016, not significant among nine tests."""
    a.fill()
    b.fill(losing(7))
    alone, among = compared(a, b, metrics=("global",), only=(REFERENCE,)), compared(a, b)
    found = [(change(one, "global").verdict, change(one, "global").p) for one in (alone, among)]
    assert found == [("worse", near(2 / 2**7)), ("within noise", near(9 * 2 / 2**7))]


def test_tolerances_of_scores_are_in_points(a: Folder, b: Folder) -> None:
    a.fill()
    b.fill(losing(30))
    assert compared(a, b, "open=16", "closed=16", "global=15.5").exit_code == 0
    assert compared(a, b, "open=16", "closed=16", "global=14.5").exit_code == 1
    assert compared(a, b, alpha=1e-9).exit_code == 0


def test_without_predictions_the_test_is_not_paired(a: Folder, b: Folder) -> None:
    """Ten of 200 questions: significant if they are the same 200, not between two shares."""
    a.fill()
    b.fill(losing(10))
    assert change(compared(a, b), "global").verdict == "worse"
    for file in b.path.rglob("predictions.jsonl"):
        file.unlink()
    one = change(compared(a, b), "global")
    assert (one.verdict, one.reason) == ("within noise", "unpaired")


def test_what_the_pattern_decides_has_no_noise(a: Folder, b: Folder) -> None:
    found = compared(a.fill(adapter_bytes=4_000_000), b.fill(adapter_bytes=4_000_001))
    assert verdicts(found, "adapter_size", "params_trainable") == ["worse", "within noise"]
    assert change(compared(b, a), "adapter_size").verdict == "better"


@pytest.mark.parametrize(("after", "verdict"), [(10.05, "within noise"), (10.2, "worse"), (9.8, "better")])
def test_memory_has_a_tolerance(a: Folder, b: Folder, after: float, verdict: str) -> None:
    found = compared(a.fill(memory=memory(10)), b.fill(memory=memory(after)))
    assert (change(found, "memory").verdict, change(found, "memory").noise) == (verdict, near(0.1))
    assert compared(a, b, "memory=5%", "memory_reserved=0.5", "memory_eval=1").exit_code == 0


@pytest.mark.parametrize(("p95", "verdict"), [(101.0, "worse"), (130.0, "within noise")])
def test_steps_that_vary_hide_a_slower_median(a: Folder, b: Folder, p95: float, verdict: str) -> None:
    found = compared(a.fill(time=steps(100, p95)), b.fill(time=steps(110, p95 + 10)))
    assert change(found, "step_time").verdict == verdict


@pytest.mark.parametrize(("apart", "verdict"), [(0.1, "worse"), (30.0, "within noise")])
def test_seeds_that_vary_hide_a_difference(tmp_path: Path, seeded: list[Cell], apart: float, verdict: str) -> None:
    """Means of 100 and 120 ms, of seeds that agree or do not."""
    a, b = Folder(tmp_path / "a", seeded), Folder(tmp_path / "b", seeded)
    for index in (2, 0, 1):
        a.put(index, time=steps(100 + apart * (index - 1), 100 + apart * (index - 1)))
        b.put(index, time=steps(120 - apart * (index - 1), 120 - apart * (index - 1)))
    found, one = (result := compared(a, b)).rows, change(result, "step_time")
    assert [[pair.a.record.seed for pair in row.pairs] for row in found] == [[1, 2, 3]]
    assert (one.a, one.b, one.verdict) == (near(100), near(120), verdict)


def test_seeds_are_matched(tmp_path: Path, seeded: list[Cell]) -> None:
    a, b = Folder(tmp_path / "a", seeded), Folder(tmp_path / "b", seeded)
    for index, folder in ((0, a), (1, a), (1, b), (2, b)):
        folder.put(index, time=steps(100 * (index + 1), 100 * (index + 1)))
    found = compared(a, b)
    assert [pair.a.record.seed for pair in found.rows[0].pairs] == [2]
    assert ([r.seed for r in found.missing], [r.seed for r in found.new]) == ([1], [3])
    assert change(found, "step_time").change == 0


def test_missing_and_new_cells(a: Folder, b: Folder) -> None:
    a.fill(cells=3)
    b.fill(cells=2).put(4)
    found = compared(a, b)
    assert [record.label for record in found.missing] == ["LoRA-LoRA-LoRA rank=4"]
    assert [record.label for record in found.new] == ["F-T-LoRA rank=4"]
    assert (found.exit_code, compared(a, b, allow_missing=True).exit_code) == (1, 0)
    assert compared(a, b, only=("F-*",)).exit_code == 0


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(Status.OK, Status.OOM, "worse"), (Status.OOM, Status.OK, "better"), (Status.OOM, Status.CRASHED, "changed")],
)
def test_a_cell_that_ends_another_way(a: Folder, b: Folder, before: Status, after: Status, verdict: str) -> None:
    for folder, status in ((a, before), (b, after)):
        folder.put(0, status=status)
        folder.put(1)
    found = compared(a, b)
    assert [pair.status_verdict for row in found.rows for pair in row.pairs] == [verdict, ""]
    assert verdicts(found, "global", "params") == ["not measured", "within noise"]
    assert found.exit_code == (verdict == "worse")


# --- what must not be compared ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected", "reason"),
    [
        (
            {"environment": {"device": "cpu", "cpu": "EPYC"}},
            ["not comparable", "within noise", "worse"],
            "device: NVIDIA A100 → cpu (EPYC)",
        ),
        (
            {"data_digest": "e" * 64},
            ["not comparable", "within noise", "not comparable"],
            f"data: {'d' * 12} → {'e' * 12}",
        ),
    ],
)
def test_other_devices_and_data_hide_what_depends_on_them(
    a: Folder, b: Folder, changes: dict[str, Any], expected: list[str], reason: str
) -> None:
    a.fill()
    b.fill(losing(30), time=steps(900, 900), **changes)
    found = compared(a, b)
    assert verdicts(found, "step_time", "params", "global") == expected
    assert change(found, "memory").reason == reason
    assert found.exit_code == ("worse" in expected)


def test_settings_that_differ_are_named(root: Path, tmp_path: Path, a: Folder) -> None:
    sets = ["train.steps=600", "evaluate.closed=answer_type"]
    other = load_cells(root / "specs" / "table1.yaml", "demo", sets=sets)[1]
    found = compared(a.fill(), Folder(tmp_path / "b", other).fill())
    assert {d.what: (d.a, d.b, d.hides) for d in found.rows[0].differences} == {
        "train.steps": ("300", "600", ()),
        "evaluate.closed": ("'yes_no'", "'answer_type'", ("score",)),
    }
    assert verdicts(found, "global", "step_time") == ["not comparable", "within noise"]


def test_defaults_that_came_later_are_no_difference(a: Folder, b: Folder, cells: list[Cell]) -> None:
    old = cells[0].model_dump(mode="json")
    del old["train"]["gradient_checkpointing"], old["task"]
    a.put(0, settings=old, cell_id="0" * 16)
    b.put(0)
    assert compared(a, b).rows[0].differences == []


def test_the_last_run_of_a_label_counts(a: Folder, b: Folder) -> None:
    """After a change of the spec the older cell, of another id, is still in the file."""
    a.fill(cells=1)
    b.put(0, losing(100), cell_id="0" * 16)
    b.put(0)
    assert compared(a, b).exit_code == 0


def test_specs_of_other_names_are_compared_where_each_side_has_one(a: Folder, b: Folder) -> None:
    a.fill()
    b.fill(spec="renamed")
    assert compared(a, b).exit_code == 0
    b.put(0, spec="third")
    with pytest.raises(SpecError, match=r"no cell is on both sides"):
        compared(a, b)


def test_nothing_in_common(a: Folder, b: Folder) -> None:
    a.put(0)
    b.put(1)
    with pytest.raises(SpecError, match=r"no cell is on both sides: .*'F-LoRA-LoRA rank=4'.*'F-LoRA-LoRA rank=8'"):
        compared(a, b)
    with pytest.raises(SpecError, match=r"--only 'X\*': no cell of"):
        compared(a, b, only=("X*",))


def test_programs_that_differ_are_named(a: Folder, b: Folder) -> None:
    older = {"device": "A", "versions": {"torch": "2.11.0"}, "git": {"commit": "a" * 40, "dirty": False}}
    newer = older | {"versions": {"torch": "2.15.0"}, "git": {"commit": "b" * 40, "dirty": True}}
    found = compared(a.fill(environment=older), b.fill(environment=newer))
    assert found.environments == ["torch: 2.11.0 → 2.15.0", f"commit: {'a' * 12} → {'b' * 12} with changes"]


# --- one cell and the others -----------------------------------------------------------------------------------


def better(cell: int, question: int) -> bool:
    """The second cell answers forty questions more than the first, and none less."""
    return half(0, question) or (cell == 1 and question % 10 < 4 and question % 2 == 1)


def test_every_other_cell_is_tested_on_the_questions_it_shares(a: Folder) -> None:
    found = against(a.fill(better))
    assert [row.label for row in found.rows] == [cell.label for cell in a.cells[1:3]]
    one, same = change(found, "global", 0), change(found, "global", 1)
    assert (one.change, one.verdict, one.reason) == (near(20.0), "better", "mcnemar")
    assert (same.change, same.verdict, same.p) == (0, "within noise", 1)
    assert (change(found, "params").verdict, found.exit_code) == ("worse", 0), "cells are meant to differ"
    back = against(a, a.cells[1].label, only=[REFERENCE])
    assert ([row.label for row in back.rows], change(back, "global").change) == ([REFERENCE], near(-20.0))


def test_between_cells_only_what_hides_a_metric_is_a_difference(a: Folder) -> None:
    assert not any(row.differences for row in against(a.fill()).rows)
    a.put(2, environment={"device": "cpu", "cpu": "EPYC"})
    found = against(a)
    assert [one.what for one in found.rows[1].differences] == ["device"]
    assert change(found, "step_time", 1).verdict == "not comparable"


def test_cells_are_paired_by_seed(tmp_path: Path, seeded: list[Cell]) -> None:
    [row] = against(Folder(tmp_path / "s", seeded).fill(cells=5)).rows
    assert [(pair.a.record.seed, pair.b.record.seed) for pair in row.pairs] == [(1, 1), (2, 2)]


def test_a_cell_that_does_not_exist(a: Folder, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="has no such cell; did you mean 'LoRA-LoRA-LoRA rank=4'"):
        against(a.fill(), "LoRA-LoRA-LoRA rank=5")
    with pytest.raises(SpecError, match=r"--only 'X\*': no cell of .* has such a label"):
        against(a, only=["X*"])
    with pytest.raises(SpecError, match="has no other cell"):
        against(Folder(tmp_path / "alone", a.cells).fill(cells=1))


# --- tolerances ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["memory", "memory=", "memory=x", "memory=-1", "=3", "memory=5 %", "memory=1e999999"])
def test_wrong_tolerances(text: str) -> None:
    with pytest.raises(SpecError, match="--tolerance"):
        parse([text])


def test_tolerances() -> None:
    found = parse(["step_time=10%", "global=1.5"])
    assert (found["step_time"].of(200), found["global"].of(70)) == (near(20), 1.5)
    with pytest.raises(SpecError, match="did you mean 'step_time'"):
        parse(["step_tme=1"])

"""What counts as a change: exact costs, measured ones beyond their noise, scores by a paired test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.compare import Change, Comparison, compare
from bench.analysis.tolerances import CompareOptions, parse
from bench.errors import SpecError
from bench.records.record import Memory, PhaseMemory, Status, Time
from bench.sources import open_records
from bench.spec.cell import Cell
from tests.analysis.conftest import Folder, usual
from tests.factories import load_cells

GIB = 2**30


def compared(a: Folder | str, b: Folder | str, rules: CompareOptions | None = None, **options: Any) -> Comparison:
    with open_records(str(a)) as ours, open_records(str(b)) as theirs:
        return compare(ours, theirs, rules or CompareOptions(), **options)


def change(found: Comparison, metric: str, row: int = 0) -> Change:
    return next(change for change in found.rows[row].changes if change.metric.name == metric)


def memory(gib: float) -> Memory:
    phase = PhaseMemory(allocated_peak_bytes=int(gib * GIB), reserved_peak_bytes=int(gib * GIB))
    return Memory(train=phase, eval=phase)


def steps(median_ms: float, p95_ms: float) -> Time:
    return Time(step_median_s=median_ms / 1e3, step_p95_s=p95_ms / 1e3)


def losing(questions: int) -> Any:
    """As usual, but for so many questions that the cell no longer answers, of both kinds."""
    kept = [question for question in range(200) if usual(0, question)]
    lost = {*kept[: questions - questions // 2], *kept[len(kept) - questions // 2 :]}
    return lambda cell, question: usual(cell, question) and not (cell == 0 and question in lost)


def test_the_same_records_have_not_changed(a: Folder, b: Folder) -> None:
    found = compared(a.fill(), b.fill())
    assert found.exit_code == 0
    assert {verdict for row in found.rows for verdict in row.verdicts()} == {"within noise", "not measured"}
    assert change(found, "memory_nvml").verdict == "not measured"
    assert change(found, "global").p == 1
    assert not found.missing
    assert not found.new


@pytest.mark.parametrize(("lost", "verdict", "code"), [(3, "within noise", 0), (30, "worse", 1)])
def test_scores_are_tested_question_by_question(a: Folder, b: Folder, lost: int, verdict: str, code: int) -> None:
    found = compared(a.fill(), b.fill(losing(lost)))
    one = change(found, "global")
    assert one.change == pytest.approx(-lost / 2)
    assert (one.verdict, one.reason) == (verdict, "mcnemar")
    assert one.low is not None
    assert one.high is not None
    assert one.low < -lost / 2 < one.high
    assert found.exit_code == code
    assert change(found, "global", 1).verdict == "within noise"
    back = compared(b, a)
    assert change(back, "global").verdict == ("better" if code else "within noise")
    assert back.exit_code == 0


def test_one_of_many_tests_must_be_surer_than_one_alone(a: Folder, b: Folder) -> None:
    """Seven questions lost and none won: p = 0.016, which is nothing among nine tests."""
    a.fill()
    b.fill(losing(7))
    alone = compared(a, b, CompareOptions(metrics=("global",)), only=["F-LoRA-LoRA rank=4"])
    assert change(alone, "global").verdict == "worse"
    assert change(alone, "global").p == pytest.approx(2 / 2**7)
    among = compared(a, b)
    assert change(among, "global").verdict == "within noise"
    assert change(among, "global").p == pytest.approx(9 * 2 / 2**7)


def test_a_tolerance_of_a_score_is_in_points(a: Folder, b: Folder) -> None:
    a.fill()
    b.fill(losing(30))
    assert compared(a, b, CompareOptions(tolerances=parse(["open=16", "closed=16", "global=15.5"]))).exit_code == 0
    assert compared(a, b, CompareOptions(tolerances=parse(["open=16", "closed=16", "global=14.5"]))).exit_code == 1
    assert compared(a, b, CompareOptions(alpha=1e-9)).exit_code == 0


def test_without_predictions_the_test_is_not_paired(a: Folder, b: Folder) -> None:
    """Ten of 200 questions: sure if they are the same 200, not sure of two shares."""
    a.fill()
    b.fill(losing(10))
    assert change(compared(a, b), "global").verdict == "worse"
    for file in b.path.rglob("predictions.jsonl"):
        file.unlink()
    one = change(compared(a, b), "global")
    assert (one.verdict, one.reason) == ("within noise", "unpaired")


def test_what_the_pattern_decides_has_no_noise(a: Folder, b: Folder) -> None:
    a.fill(adapter_bytes=4_000_000)
    found = compared(a, b.fill(adapter_bytes=4_000_001))
    assert change(found, "adapter_size").verdict == "worse"
    assert change(found, "params_trainable").verdict == "within noise"
    assert change(compared(b, a), "adapter_size").verdict == "better"


@pytest.mark.parametrize(("after", "verdict"), [(10.05, "within noise"), (10.2, "worse"), (9.8, "better")])
def test_memory_has_a_tolerance(a: Folder, b: Folder, after: float, verdict: str) -> None:
    found = compared(a.fill(memory=memory(10)), b.fill(memory=memory(after)))
    assert change(found, "memory").verdict == verdict
    assert change(found, "memory").noise == pytest.approx(0.1)
    wide = compared(a, b, CompareOptions(tolerances=parse(["memory=5%", "memory_reserved=0.5", "memory_eval=1"])))
    assert wide.exit_code == 0


@pytest.mark.parametrize(("p95", "verdict"), [(101.0, "worse"), (130.0, "within noise")])
def test_steps_that_vary_hide_a_slower_median(a: Folder, b: Folder, p95: float, verdict: str) -> None:
    found = compared(a.fill(time=steps(100, p95)), b.fill(time=steps(110, p95 + 10)))
    assert change(found, "step_time").verdict == verdict


def test_seeds_that_vary_hide_a_difference(tmp_path: Path, seeded: list[Cell]) -> None:
    """The same means, 100 and 120 ms, of seeds that agree and of seeds that do not."""
    for name, apart, verdict in (("near", 0.1, "worse"), ("far", 30.0, "within noise")):
        a, b = Folder(tmp_path / f"{name}a", seeded), Folder(tmp_path / f"{name}b", seeded)
        for place in (2, 0, 1):
            a.put(place, time=steps(100 + apart * (place - 1), 100 + apart * (place - 1)))
            b.put(place, time=steps(120 - apart * (place - 1), 120 - apart * (place - 1)))
        found = compared(a, b)
        assert [[pair.a.record.seed for pair in row.pairs] for row in found.rows] == [[1, 2, 3]]
        assert change(found, "step_time").a == pytest.approx(100)
        assert change(found, "step_time").b == pytest.approx(120)
        assert change(found, "step_time").verdict == verdict


def test_seeds_are_matched(tmp_path: Path, seeded: list[Cell]) -> None:
    a, b = Folder(tmp_path / "a", seeded), Folder(tmp_path / "b", seeded)
    for place, folder in ((0, a), (1, a), (1, b), (2, b)):
        folder.put(place, time=steps(100 * (place + 1), 100 * (place + 1)))
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
    assert found.exit_code == 1
    assert compared(a, b, allow_missing=True).exit_code == 0
    assert compared(a, b, only=["F-*"]).exit_code == 0


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (Status.OK, Status.OOM, "worse"),
        (Status.OOM, Status.OK, "better"),
        (Status.OOM, Status.CRASHED, "changed"),
    ],
)
def test_a_cell_that_ends_another_way(a: Folder, b: Folder, before: Status, after: Status, verdict: str) -> None:
    for folder, status in ((a, before), (b, after)):
        folder.put(0, status=status)
        folder.put(1)
    found = compared(a, b)
    assert [p.status_verdict for row in found.rows for p in row.pairs if p.status_verdict] == [verdict]
    assert change(found, "global").verdict == "not measured"
    assert change(found, "params").verdict == "within noise"
    assert found.exit_code == (verdict == "worse")


def test_another_device_hides_what_it_measures(a: Folder, b: Folder) -> None:
    a.fill()
    b.fill(losing(30), time=steps(900, 900), environment={"device": "cpu", "cpu": "EPYC"})
    found = compared(a, b)
    verdicts = {name: change(found, name).verdict for name in ("step_time", "memory", "params", "global")}
    assert verdicts == {
        "step_time": "not comparable", "memory": "not comparable", "params": "within noise", "global": "worse",
    }  # fmt: skip
    assert change(found, "step_time").reason == "device: NVIDIA A100 → cpu (EPYC)"


def test_other_data_hide_scores_too(a: Folder, b: Folder) -> None:
    found = compared(a.fill(), b.fill(losing(30), data_digest="e" * 64))
    assert {change(found, name).verdict for name in ("step_time", "open", "global")} == {"not comparable"}
    assert change(found, "params").verdict == "within noise"
    assert found.exit_code == 0


def test_settings_that_differ_are_named(root: Path, tmp_path: Path, a: Folder) -> None:
    sets = ["train.steps=600", "evaluate.closed=answer_type"]
    other = load_cells(root / "specs" / "table1.yaml", "demo", sets=sets)[1]
    found = compared(a.fill(), Folder(tmp_path / "b", other).fill())
    differences = {d.what: (d.a, d.b, d.hides) for d in found.rows[0].differences}
    assert differences == {
        "train.steps": ("300", "600", ()),
        "evaluate.closed": ("'yes_no'", "'answer_type'", ("score",)),
    }
    assert change(found, "global").verdict == "not comparable"
    assert change(found, "step_time").verdict == "within noise"


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
        compared(a, b, only=["X*"])


def test_programs_that_differ_are_told(a: Folder, b: Folder) -> None:
    environment = {
        "device": "NVIDIA A100",
        "versions": {"torch": "2.11.0"},
        "git": {"commit": "a" * 40, "dirty": False},
    }
    newer = environment | {"versions": {"torch": "2.15.0"}, "git": {"commit": "b" * 40, "dirty": True}}
    found = compared(a.fill(environment=environment), b.fill(environment=newer))
    assert found.environments == ["torch: 2.11.0 → 2.15.0", f"commit: {'a' * 12} → {'b' * 12} with changes"]


@pytest.mark.parametrize("text", ["memory", "memory=", "memory=x", "memory=-1", "=3", "memory=5 %", "memory=1e999999"])
def test_wrong_tolerances(text: str) -> None:
    with pytest.raises(SpecError, match="--tolerance"):
        parse([text])


def test_tolerances() -> None:
    found = parse(["step_time=10%", "global=1.5"])
    assert found["step_time"].of(200) == pytest.approx(20)
    assert found["global"].of(70) == 1.5
    with pytest.raises(SpecError, match="did you mean 'step_time'"):
        parse(["step_tme=1"])

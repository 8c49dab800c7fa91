"""The pool of estimator processes: every cell is answered for, whatever a process does, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from bench.environment import usable_cores
from bench.estimate import pool
from bench.estimate.pool import estimate_all
from bench.records.costs import Estimate
from bench.spec.cell import Cell
from tests.sweeps import make_cell, wait_until

FAKE = (sys.executable, str(Path(__file__).parents[1] / "fake_estimator.py"))


def cell_of(label: str, **changes: object) -> Cell:
    """Cells with different labels cost differently."""
    batch = 1 + sum(map(ord, label))
    cell = make_cell(label)
    return cell.model_copy(update={"train": cell.train.model_copy(update={"batch_size": batch})} | changes)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    monkeypatch.setenv("FAKE_NOTES", str(path))
    return path


def lines(notes: Path) -> list[tuple[int, str]]:
    """Process and label of every request, in order."""
    found = [line.split(" ", 1) for line in notes.read_text().splitlines()] if notes.exists() else []
    return [(int(pid), label) for pid, label in found]


def run(cells: Sequence[Cell], **options: object) -> tuple[dict[str, Estimate], dict[str, str | None]]:
    """Estimates and failures by label."""
    told: dict[str, str | None] = {}
    found = estimate_all(
        cells,
        gpu="ampere",
        on_done=lambda cell, _, failure: told.update({cell.label: failure}),
        estimator=FAKE,
        **options,  # type: ignore[arg-type]
    )
    return {cell.label: found[cell.cell_id] for cell in cells}, told


def gone(notes: Path) -> bool:
    return not any(lives(pid) for pid, _ in lines(notes))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_cell_is_estimated_and_told(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 3)
    cells = [cell_of(f"slow {number}") for number in range(7)]
    found, told = run(cells, max_batch_bytes=24 * 2**30)
    assert {label: estimate.max_batch for label, estimate in found.items()} == {cell.label: 24 for cell in cells}
    assert told == dict.fromkeys(found)
    assert len({pid for pid, _ in lines(notes)}) == 3
    assert gone(notes)


def test_no_more_processes_than_cells_cores_or_memory_allow(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)
    run([cell_of("slow 1"), cell_of("slow 2")])
    assert len({pid for pid, _ in lines(notes)}) == 2
    notes.unlink()
    monkeypatch.setattr(pool, "NEEDED_BYTES", psutil.virtual_memory().total * 2)
    run([cell_of("slow 1"), cell_of("slow 2")])
    assert len({pid for pid, _ in lines(notes)}) == 1


def test_seeds_share_an_estimate(notes: Path) -> None:
    cells = [cell_of("ok 1", seed=seed, cell_id=f"{seed:016}", labels={"a": 1}) for seed in (1, 2, 3)]
    found = estimate_all(cells, gpu="hopper", estimator=FAKE)
    assert len(lines(notes)) == 1
    assert found.keys() == {cell.cell_id for cell in cells}
    assert {estimate.assumed["seed"] for estimate in found.values()} == {1}
    assert {estimate.assumed["gpu"] for estimate in found.values()} == {"hopper"}


@pytest.mark.parametrize("changes", [{"parts": {"vit": "T"}}, {"evaluate": None}, {"model": None}])
def test_what_costs_differently_is_estimated_by_itself(notes: Path, changes: dict[str, object]) -> None:
    cell = make_cell("ok")
    other = {"evaluate": cell.evaluate.model_copy(update={"num_beams": 4}), "model": cell.model.model_copy()}
    if "model" in changes:
        other["model"] = type(cell.model).model_validate(cell.model.model_dump() | {"question_max_tokens": 9})
    update = {key: value if value is not None else other[key] for key, value in changes.items()}
    estimate_all([cell, cell.model_copy(update=update | {"cell_id": "0" * 16})], gpu="ampere", estimator=FAKE)
    assert len(lines(notes)) == 2


@pytest.mark.parametrize(
    ("act", "reason", "tail"),
    [
        ("kill", "the process that estimated it ended (killed by signal 9)", ""),
        ("exit", "the process that estimated it ended (exit code 3)", "Traceback: no such operation on meta"),
        ("fail", "the estimate failed (ZeroDivisionError: division by zero)", "Traceback: division by zero"),
    ],
)
def test_a_failure_costs_one_cell(
    notes: Path, monkeypatch: pytest.MonkeyPatch, act: str, reason: str, tail: str
) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    found, told = run([cell_of("ok 1"), cell_of(act), cell_of("ok 2"), cell_of("ok 3")])
    assert found[act].refused == [reason]
    assert found[act].memory is None
    assert [found[f"ok {n}"].memory is not None for n in (1, 2, 3)] == [True] * 3
    failure = told.pop(act)
    assert failure is not None
    assert failure.startswith(reason)
    assert failure.endswith(tail or reason)
    assert set(told.values()) == {None}
    pids = [pid for pid, _ in lines(notes)]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert (pids[1] == pids[2]) is (act == "fail"), "a dead process is replaced, a living one kept"


def test_a_process_that_cannot_start_does_not_stop_the_others() -> None:
    code = "import sys; print('ModuleNotFoundError: no torch', file=sys.stderr); sys.exit(1)"
    told: list[str | None] = []
    cells = [cell_of("ok 1"), cell_of("ok 2"), cell_of("ok 3")]
    found = estimate_all(
        cells, gpu="ampere", on_done=lambda *done: told.append(done[2]), estimator=(sys.executable, "-c", code)
    )
    assert [estimate.refused for estimate in found.values()] == [
        ["the process that estimated it ended (exit code 1)"]
    ] * 3
    assert all(failure and failure.endswith("ModuleNotFoundError: no torch") for failure in told)


def test_an_error_of_the_caller_leaves_no_process(notes: Path) -> None:
    def stop(*_: object) -> None:
        raise RuntimeError

    cells = [cell_of("ok"), cell_of("hang 1"), cell_of("hang 2")]
    with pytest.raises(RuntimeError):
        estimate_all(cells, gpu="ampere", on_done=stop, estimator=FAKE)
    assert gone(notes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_outlives_an_interrupted_pool(notes: Path, number: signal.Signals) -> None:
    cells = [cell_of("hang 1"), cell_of("hang 2"), cell_of("hang 3")]
    told = json.dumps([cell.model_dump(mode="json") for cell in cells])
    argv = [sys.executable, "-m", "tests.estimate.test_pool", told]
    process = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    expected = min(usable_cores(), 3)
    wait_until(lambda: len(lines(notes)) == expected)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -number
    assert (b"KeyboardInterrupt" in err) is (number is signal.SIGINT)
    wait_until(lambda: gone(notes), timeout_s=5)
    assert len(lines(notes)) == expected


def test_nothing_to_estimate() -> None:
    assert estimate_all([], gpu="ampere", estimator=FAKE) == {}


if __name__ == "__main__":
    estimate_all([Cell.model_validate(cell) for cell in json.loads(sys.argv[1])], gpu="ampere", estimator=FAKE)

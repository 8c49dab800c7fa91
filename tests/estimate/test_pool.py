"""The pool of estimator processes: every cell gets an answer, whatever a process does, and no process is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.environment import child_environ, usable_cores
from bench.estimate import pool
from bench.estimate.pool import ESTIMATOR, estimate_all
from bench.records.costs import Estimate
from bench.spec.cell import Cell
from tests.sweeps import make_cell, wait_until

FAKE = (sys.executable, str(Path(__file__).parents[1] / "fake_estimator.py"))
ENDED = "the process that estimated it ended"
SPEC = """\
model: {family: miss, preset: tiny}
data: {name: easy_vqa}
train: {steps: 2, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4, num_beams: 1, max_new_tokens: 2}
methods: {LoRA: {type: lora, r: 4}}
matrix: {axes: {parts: [{vit: F, jtm: LoRA, dec: LoRA}, {vit: F, jtm: T, dec: LoRA}]}}
"""


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


def run(
    cells: Sequence[Cell], estimator: Sequence[str] = FAKE, **options: Any
) -> tuple[dict[str, Estimate], dict[str, str | None]]:
    """Estimates and failures by label."""
    failures: dict[str, str | None] = {}

    def on_done(cell: Cell, _: Estimate, failure: str | None) -> None:
        failures[cell.label] = failure

    estimates = estimate_all(cells, gpu="ampere", on_done=on_done, estimator=estimator, **options)
    return {cell.label: estimates[cell.cell_id] for cell in cells}, failures


def gone(notes: Path) -> bool:
    return not any(lives(pid) for pid, _ in lines(notes))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_every_cell_is_estimated_once(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 3)
    cells = [cell_of(f"slow {number}") for number in range(7)]
    found, failures = run(cells, max_batch_bytes=24 * 2**30)
    assert {label: estimate.max_batch for label, estimate in found.items()} == {cell.label: 24 for cell in cells}
    assert failures == dict.fromkeys(found)
    assert len({pid for pid, _ in lines(notes)}) == 3
    assert gone(notes)
    assert run([]) == ({}, {})


@pytest.mark.parametrize(("memory", "processes"), [(2**20, 2), (2**60, 1)])
def test_no_more_processes_than_cells_or_memory_allow(
    notes: Path, monkeypatch: pytest.MonkeyPatch, memory: int, processes: int
) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 8)
    monkeypatch.setattr(pool, "NEEDED_BYTES", memory)
    run([cell_of("slow 1"), cell_of("slow 2")])
    assert len({pid for pid, _ in lines(notes)}) == processes


def test_seeds_share_an_estimate(notes: Path) -> None:
    cells = [cell_of("ok 1", seed=seed, cell_id=f"{seed:016}", labels={"a": 1}) for seed in (1, 2, 3)]
    found = estimate_all(cells, gpu="hopper", estimator=FAKE)
    assert len(lines(notes)) == 1
    assert found.keys() == {cell.cell_id for cell in cells}
    assert {(estimate.assumed["seed"], estimate.assumed["gpu"]) for estimate in found.values()} == {(1, "hopper")}


@pytest.mark.parametrize("change", ["parts", "evaluate", "model"])
def test_what_costs_differently_is_estimated_separately(notes: Path, change: str) -> None:
    cell = make_cell("ok")
    changes = {
        "parts": {"vit": "T"},
        "evaluate": cell.evaluate.model_copy(update={"num_beams": 4}),
        "model": type(cell.model).model_validate(cell.model.model_dump() | {"question_max_tokens": 9}),
    }
    other = cell.model_copy(update={change: changes[change], "cell_id": "0" * 16})
    estimate_all([cell, other], gpu="ampere", estimator=FAKE)
    assert len(lines(notes)) == 2


@pytest.mark.parametrize(
    ("act", "reason", "tail"),
    [
        ("kill", f"{ENDED} (killed by signal 9)", ""),
        ("exit", f"{ENDED} (exit code 3)", "Traceback: no such operation on meta"),
        ("fail", "the estimate failed (ZeroDivisionError: division by zero)", "Traceback: division by zero"),
    ],
)
def test_a_failure_costs_one_cell(
    notes: Path, monkeypatch: pytest.MonkeyPatch, act: str, reason: str, tail: str
) -> None:
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    found, failures = run([cell_of("ok 1"), cell_of(act), cell_of("ok 2"), cell_of("ok 3")])
    assert found[act] == Estimate(refused=[reason])
    assert [found[f"ok {n}"].memory is not None for n in (1, 2, 3)] == [True] * 3
    failure = failures.pop(act)
    assert failure is not None
    assert failure.startswith(reason)
    assert failure.endswith(tail or reason)
    assert set(failures.values()) == {None}
    pids = [pid for pid, _ in lines(notes)]
    assert (pids[0], pids[2]) == (pids[1], pids[3])
    assert (pids[1] == pids[2]) is (act == "fail"), "a dead process is replaced, a living one kept"


def test_a_process_that_cannot_start_does_not_stop_the_others() -> None:
    code = "import sys; print('ModuleNotFoundError: no torch', file=sys.stderr); sys.exit(1)"
    found, failures = run([cell_of(f"ok {n}") for n in (1, 2, 3)], estimator=(sys.executable, "-c", code))
    assert [estimate.refused for estimate in found.values()] == [[f"{ENDED} (exit code 1)"]] * 3
    assert all(failure and failure.endswith("ModuleNotFoundError: no torch") for failure in failures.values())


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
    argument = json.dumps([cell.model_dump(mode="json") for cell in cells])
    argv = [sys.executable, "-m", "tests.estimate.test_pool", argument]
    process = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    expected = min(usable_cores(), 3)
    wait_until(lambda: len(lines(notes)) == expected)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -number
    assert (b"KeyboardInterrupt" in err) is (number is signal.SIGINT)
    wait_until(lambda: gone(notes), timeout_s=5)
    assert len(lines(notes)) == expected


def test_the_real_estimator_answers_one_line_each_whatever_libraries_print(tmp_path: Path) -> None:
    """``sitecustomize`` stands in for a library that prints as the estimator is imported, from Python and below it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, os\n"
        "build = builtins.__build_class__\n"
        "def noisy(function, name, *bases, **options):\n"
        "    if name == 'Estimator': print('noise', flush=True); os.system('echo more noise')\n"
        "    return build(function, name, *bases, **options)\n"
        "builtins.__build_class__ = noisy\n"
    )
    environ = child_environ()
    environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environ.get("PYTHONPATH", "")])
    cell = make_cell("ok").model_dump(mode="json")
    request = {"cell": cell, "gpu": "ampere", "max_batch_bytes": None, "counts_only": False}
    broken = cell | {"parts": {"vit": "F", "jtm": "F", "wrong": "T"}}
    requests = [request, request | {"cell": broken}, request | {"gpu": "none"}, request]
    stdin = "".join(json.dumps(each) + "\n" for each in requests)
    done = subprocess.run(ESTIMATOR, input=stdin, env=environ, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = map(json.loads, done.stdout.splitlines())
    assert all(text in done.stderr for text in ("noise", "more noise", "Traceback"))
    estimate = Estimate.model_validate(first["estimate"])
    assert (estimate.params is not None, estimate.memory is not None, estimate.refused) == (True, True, [])
    assert second["cell_id"] == broken["cell_id"]
    assert "error" in second or second["estimate"]["refused"]
    assert third["error"].startswith("KeyError")
    assert fourth == first, "a failure leaves the next estimate as it was"


def test_the_pool_and_the_real_estimator_agree() -> None:
    [estimate] = estimate_all([make_cell("ok")], gpu="hopper", max_batch_bytes=2**40).values()
    assert estimate.assumed["gpu"] == "hopper"
    assert estimate.memory is not None
    assert estimate.max_batch is not None or estimate.refused


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_command_leaves_no_process(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(SPEC)
    command = [sys.executable, str(root / "run_bench.py"), str(spec), "--estimate"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    us = psutil.Process(process.pid)
    wait_until(us.children)
    started = us.children()
    os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
    _, err = process.communicate(timeout=20)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert err.endswith("interrupted\n") is (number is signal.SIGINT)
    assert "Traceback" not in err
    wait_until(lambda: not any(lives(child.pid) for child in started))


if __name__ == "__main__":
    estimate_all([Cell.model_validate(cell) for cell in json.loads(sys.argv[1])], gpu="ampere", estimator=FAKE)

"""The worker as the executors start it: a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell
from bench.worker.run import run_cell

Make = Callable[..., Cell]


def start(cell: Cell, job: Path, root: Path) -> subprocess.Popen[bytes]:
    job.mkdir(exist_ok=True)
    (job / "cell.json").write_text(cell.model_dump_json())
    argv = [sys.executable, "-m", "bench.worker", str(job / "cell.json"), str(job / "result.json")]
    with (job / "log.txt").open("wb") as log:
        return subprocess.Popen(argv, cwd=root, stdout=log, stderr=log)


def wait_for_phase(job: Path, phase: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(2000):
        file = job / "progress.json"
        if file.exists() and json.loads(file.read_text())["phase"] == phase:
            return
        assert process.poll() is None, (job / "log.txt").read_text()
        time.sleep(0.1)
    pytest.fail(f"never reached {phase}")


def test_a_worker_writes_its_record_and_leaves_nothing_else(make_cell: Make, tmp_path: Path, root: Path) -> None:
    job = tmp_path / "job"
    process = start(make_cell(), job, root)
    assert process.wait(timeout=220) == 0, (job / "log.txt").read_text()
    record = CellRecord.model_validate_json((job / "result.json").read_bytes())
    assert record.status is Status.OK
    assert {p.name for p in job.iterdir()} == {
        "cell.json",
        "log.txt",
        "predictions.jsonl",
        "progress.json",
        "result.json",
    }
    progress = json.loads((job / "progress.json").read_text())
    assert (progress["phase"], progress["done"], progress["total"]) == ("estimate", 0, 0)
    here = run_cell(make_cell(), tmp_path / "here")
    assert here.loss_curve == record.loss_curve, "the same bits in another process"
    assert (tmp_path / "here" / "predictions.jsonl").read_bytes() == (job / "predictions.jsonl").read_bytes()


def test_a_terminated_worker_leaves_no_record(make_cell: Make, tmp_path: Path, root: Path) -> None:
    job = tmp_path / "job"
    process = start(make_cell(train={"steps": 100_000}), job, root)
    wait_for_phase(job, "train", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert not (job / "result.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
def test_a_worker_dies_with_its_parent(tmp_path: Path, root: Path) -> None:
    worker = "from bench.environment import die_with_parent; import os, time; die_with_parent(os.environ['P']);"
    worker += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = "import os, subprocess, sys; "
    parent += "subprocess.run([sys.executable, '-c', sys.argv[1]], env=os.environ | {'P': str(os.getpid())})"
    runner = subprocess.Popen([sys.executable, "-c", parent, worker], cwd=root)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    orphan = psutil.Process(int((tmp_path / "pid").read_text()))
    runner.kill()
    runner.wait()
    gone, _ = psutil.wait_procs([orphan], timeout=10)
    assert gone


def test_a_worker_whose_parent_is_already_gone_ends_at_once(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.worker", "none.json", "none.json"],
        cwd=root,
        env=os.environ | {"BENCH_PARENT": "1073741824"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (1, "the runner has ended")

"""Random kills of runner, worker and grandchild at any moment: nothing is lost, nothing hangs, nothing is left running.

``BENCH_KILLS_S`` sets how long the campaign goes on, ``BENCH_KILLS_SEED`` what it draws."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.execution.processes import JOB_MARK
from bench.records.record import CellRecord, Status
from bench.records.store import ResultsFile
from tests.conftest import ROOT
from tests.sweeps import data_digest, environ_of, maps, processes_with

SECONDS = float(os.environ.get("BENCH_KILLS_S", "80"))
SEED = int(os.environ.get("BENCH_KILLS_SEED", "1"))
CELLS, KILLS_A_ROUND, WATCHDOG_S = 6, 6, 90.0
MARK = "BENCH_TEST_KILLS"
SPEC = """\
name: camp
model: {family: miss, preset: tiny}
data: {name: easy_vqa}
train: {steps: 1, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4, num_beams: 1}
run: {device: cpu, threads: 1}
parts: {vit: F, jtm: F, dec: T}
matrix:
  axes: {train.optimizer.lr: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]}
  names: {train.optimizer.lr: lr}
"""
EXECUTOR = """\
from bench.executors.local import LocalExecutor
from tests.sweeps import FAKE_WORKER

def create(cells):
    return LocalExecutor((), worker=FAKE_WORKER)
"""
STACKS = "import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1, all_threads=True)\n"
"""As ``sitecustomize``: a runner that hangs says where."""


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    draw, kills = random.Random(SEED), 0
    until = time.monotonic() + SECONDS
    environ = surroundings(tmp_path)
    while time.monotonic() < until:
        folder = tmp_path / f"round after {kills} kills"
        folder.mkdir()
        finished: dict[str, CellRecord] = {}
        for attempt in range(KILLS_A_ROUND + 1):
            killed = attempt < KILLS_A_ROUND and time.monotonic() < until
            run = Run(folder, attempt, environ)
            how = run.kill_at_random(draw) if killed else "nothing"
            kills += killed
            code = run.end(how)
            finished = check(folder, finished, f"{how} in attempt {attempt} of {folder.name}")
            if code == 0 or not killed:
                assert code == 0, run.said()
                break
        assert len(finished) == CELLS
    assert kills > SECONDS / 30, "a machine this slow tests nothing"


class Run:
    """The program in a process of its own."""

    def __init__(self, folder: Path, attempt: int, environ: dict[str, str]) -> None:
        self.results, self.stderr = folder / "results", folder / f"stderr {attempt}"
        self.mark = str(self.stderr)
        argv = [sys.executable, str(ROOT / "run_bench.py"), str(folder.parent / "camp.yaml"), "--executor", "faked"]
        argv += ["--results", str(self.results), "--reports", str(folder / "reports")]
        with self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                argv, env=environ | {MARK: self.mark}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.stderr.read_text(errors="replace")

    def kill_at_random(self, draw: random.Random) -> str:
        """Once, at any time from its start to the end of the report; says how."""
        self._wait(lambda: "pydantic_core" in maps(self.process.pid), 20)  # before, it is Python that answers
        if draw.random() < 0.5:
            self._wait(lambda: f"{CELLS} cells:" in self.said(), 20)
        self._wait(lambda: False, draw.uniform(0, 2.5))
        target, number = draw.choice(("runner", "runner", "group", "worker", "orphan")), draw.choice(SIGNALS)
        with suppress(ProcessLookupError, psutil.Error):
            # Python's own tracker of semaphores is no worker: killed, it is started again and complains of the first.
            workers = [
                c for c in psutil.Process(self.process.pid).children() if "resource_tracker" not in str(c.cmdline())
            ]
            orphans = [one for one in of_a_job(self.mark) if one not in workers]
            hit = {"worker": workers, "orphan": orphans}.get(target) or [psutil.Process(self.process.pid)]
            if target == "group":
                os.killpg(self.process.pid, number)
            else:
                hit[0].send_signal(number)
            if number == signal.SIGSTOP:
                time.sleep(draw.uniform(0.1, 0.5))
                os.killpg(self.process.pid, signal.SIGCONT)
                hit[0].send_signal(draw.choice((signal.SIGCONT, signal.SIGKILL)))
            if number == signal.SIGINT and draw.random() < 0.3:
                time.sleep(draw.uniform(0, 0.5))
                os.kill(self.process.pid, signal.SIGINT)
        return f"{number.name} to {target}"

    def end(self, how: str) -> int:
        """Its exit code. Fails if it hangs, leaves processes behind or prints a traceback."""
        try:
            code = self.process.wait(WATCHDOG_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            self.process.kill()
            raise AssertionError(f"hangs after {how}:\n{self.said()}") from None
        assert "Traceback" not in self.said(), f"after {how}:\n{self.said()}"
        orphans = of_a_job(self.mark) if code < 0 else []  # of a killed runner they are ended by the next
        left = [one for one in processes_with(**{MARK: self.mark}) if one not in orphans]
        _, alive = psutil.wait_procs(left, timeout=5)
        assert not alive, f"left after {how}: {[one.cmdline() for one in alive if one.is_running()]}"
        return code

    def _wait(self, condition: object, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until and not condition():  # type: ignore[operator]
            time.sleep(0.02)


SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGSTOP)


def check(folder: Path, before: dict[str, CellRecord], after: str) -> dict[str, CellRecord]:
    """What is finished. Fails if a finished record is gone, changed or there twice."""
    history = ResultsFile(folder / "results" / "camp" / "default.jsonl", warn=lambda _: None).history()
    last = {record.cell_id: record for record in history}
    fine = [record for record in history if record.status is Status.OK]
    assert len(fine) == len({record.cell_id for record in fine}), f"a finished cell ran again after {after}"
    for cell_id, record in before.items():
        assert last.get(cell_id) == record, f"lost or changed after {after}"
    return {record.cell_id: record for record in fine}


def surroundings(folder: Path) -> dict[str, str]:
    """Environment in which the executor ``faked`` is installed; the spec is beside it."""
    (folder / "camp.yaml").write_text(SPEC)
    plugin = folder / "plugin"
    about = plugin / "faked-1.0.dist-info"
    about.mkdir(parents=True)
    (plugin / "faked.py").write_text(EXECUTOR)
    (plugin / "sitecustomize.py").write_text(STACKS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faked\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[bench.executors]\nfaked = faked\n")
    return dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FAKE_NOTES": str(folder / "notes"),
        "FAKE_DATA_DIGEST": data_digest(),
        "FAKE_PAUSE_S": "0.04",
        "FAKE_ORPHANS": "1",
    }


def of_a_job(mark: str) -> list[psutil.Process]:
    """Those that a worker has started: not bound to the life of anything."""
    return [one for one in processes_with(**{MARK: mark}) if environ_of(one).get(JOB_MARK) and "-S" in arguments(one)]


def arguments(process: psutil.Process) -> Sequence[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return ()

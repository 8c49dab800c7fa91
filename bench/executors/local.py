"""Local executor: a worker process per cell; runs a cell per GPU at a time, or ``run.parallel`` cells on a CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from bench.environment import Gpu, child_environ, usable_gpus
from bench.execution.contracts import ProcessExit
from bench.execution.processes import JOB_MARK, end_leftovers, end_worker, oom_kills
from bench.spec.cell import Cell

# -P: a folder named "bench" in the user's working directory is not this package.
WORKER = (sys.executable, "-P", "-m", "bench.worker")
GRACE_S = 5.0


def create(cells: Sequence[Cell]) -> LocalExecutor:
    """An executor on all visible GPUs, or on the CPU. Raises SpecError for ``run.device: cuda`` without one."""
    gpus = {gpu.token: gpu for device in {cell.run.device for cell in cells} for gpu in usable_gpus(device)}
    return LocalExecutor(list(gpus.values()), on_cpu=min((cell.run.parallel for cell in cells), default=1))


class LocalExecutor:
    """Worker processes on this machine."""

    in_process = False

    def __init__(self, gpus: Sequence[Gpu], *, on_cpu: int = 1, worker: Sequence[str] = WORKER) -> None:
        """``on_cpu``: cells at a time where there are no GPUs."""
        self._worker = tuple(worker)
        self._free: list[Gpu | None] = [*gpus] or [None] * on_cpu
        self._all = len(self._free)
        self._stuck: list[tuple[subprocess.Popen[bytes], Gpu | None]] = []
        """Workers that no signal ends, each with the device that it still holds."""

    @property
    def slots(self) -> int:
        """Devices, or cells at a time on a CPU, except those that a stuck worker holds."""
        for each in [(process, slot) for process, slot in self._stuck if process.poll() is not None]:
            self._stuck.remove(each)
            self._free.append(each[1])
        return self._all - len(self._stuck)

    def start(self, cell: Cell, job: Path) -> LocalCell:
        """Start the worker on a free device. Raises OSError if the log cannot be written."""
        slot = self._free.pop(0)
        gpu = None if cell.run.device == "cpu" else slot
        try:
            with (job / "log.txt").open("wb") as log:
                process = subprocess.Popen(
                    [*self._worker, str(job / "cell.json"), str(job / "result.json")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_worker_environment(cell, job, gpu),
                    start_new_session=True,  # the runner handles Ctrl-C in the terminal
                )
        except BaseException:
            self._free.append(slot)
            raise

        def release(ended: bool) -> None:
            if ended:
                self._free.append(slot)
            else:
                self._stuck.append((process, slot))

        return LocalCell(cell, job, process, gpu, release)


class LocalCell:
    """A cell's worker process."""

    def __init__(
        self, cell: Cell, job: Path, process: subprocess.Popen[bytes], gpu: Gpu | None, release: Callable[[bool], None]
    ) -> None:
        """``release``: gives the device back if the process has ended, else keeps it from other cells."""
        self.device = gpu.name if gpu else "cpu"
        self._run = cell.run
        self._job = job
        self._process = process
        self._release = release
        self._exit: ProcessExit | None = None
        self._oom_kills = oom_kills()
        self._started = self._last_sign = time.monotonic()
        self._progress_time: int | None = None

    def poll(self) -> ProcessExit | None:
        """How the worker ended, or None while it runs."""
        if self._exit is None:
            limit = self._passed_limit()
            if limit is not None or self._process.poll() is not None:
                self._end(limit=limit, grace_s=GRACE_S)
        return self._exit

    def cancel(self, *, grace_s: float) -> None:
        """End the worker and everything it started."""
        if self._exit is None:
            self._end(limit=None, grace_s=grace_s)

    def _end(self, *, limit: Literal["wall_clock", "no_progress"] | None, grace_s: float) -> None:
        by_itself = self._process.poll() is not None
        if by_itself:
            end_leftovers(self._job)
        else:
            end_worker(self._process.pid, self._job, grace_s=grace_s)
        stuck = False
        try:
            code = self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:  # in a driver, where no signal reaches it
            code, stuck = -signal.SIGKILL, True
        killed = by_itself and code == -signal.SIGKILL and self._oom_kills is not None
        self._exit = ProcessExit(
            returncode=code,
            passed_limit=limit,
            host_out_of_memory=killed and (oom_kills() or 0) > (self._oom_kills or 0),
            stuck_pid=self._process.pid if stuck else None,
        )
        self._release(not stuck)

    def _passed_limit(self) -> Literal["wall_clock", "no_progress"] | None:
        now = time.monotonic()
        try:
            changed = (self._job / "progress.json").stat().st_mtime_ns
        except OSError:
            changed = None  # not yet written: the worker is importing
        if changed != self._progress_time:
            self._progress_time, self._last_sign = changed, now
        if now - self._started > self._run.wall_clock_limit_s:
            return "wall_clock"
        return "no_progress" if now - self._last_sign > self._run.no_progress_limit_s else None


def _worker_environment(cell: Cell, job: Path, gpu: Gpu | None) -> dict[str, str]:
    """Environment variables of a worker; fixes those that affect results and mark its processes."""
    threads = {} if cell.run.threads is None else {"OMP_NUM_THREADS": str(cell.run.threads)}
    return child_environ() | threads | {
        "CUDA_VISIBLE_DEVICES": gpu.token if gpu else "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # NVML's order, by which a number means the same to both
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "BENCH_PARENT": str(os.getpid()),
        JOB_MARK: str(job.resolve()),
    }  # fmt: skip

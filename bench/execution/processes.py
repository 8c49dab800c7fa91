"""End a worker with everything it started, also processes in another session or without their parent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

JOB_MARK = "BENCH_JOB"
"""Environment variable with the job folder; every descendant of a worker inherits it."""
_KILL_ROUNDS = 20


def end_worker(pid: int, job: Path, *, grace_s: float) -> None:
    """End a worker and all its descendants: SIGTERM, then SIGKILL after ``grace_s`` seconds."""

    def descendants() -> set[psutil.Process]:
        try:
            worker = psutil.Process(pid)
            return {worker, *worker.children(recursive=True)}
        except psutil.Error:
            return set()

    _end_all(lambda: descendants() | marked(job), grace_s=grace_s)


def end_leftovers(job: Path, *, grace_s: float = 0.5) -> int:
    """End remaining processes of a job, or of all jobs under a folder, without their worker; returns their number."""
    return _end_all(lambda: marked(job), grace_s=grace_s)


def marked(job: Path) -> set[psutil.Process]:
    """Living processes whose environment names this job folder or one below it, except this process and its parents."""
    folder = str(job.resolve())
    found = set()
    for process in psutil.process_iter():
        try:
            named = process.environ().get(JOB_MARK, "")
        except (psutil.Error, OSError):
            continue  # gone, or another user's
        if (named == folder or named.startswith(folder + os.sep)) and _lives(process):
            found.add(process)
    me = psutil.Process()
    return found - {me, *me.parents()}


def oom_kills(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Processes that the kernel has killed because host memory was exhausted, in this control group (version 2) or
    else on the whole machine; None if neither count can be read."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    group = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    for events in (cgroup / group.lstrip("/") / "memory.events", proc / "vmstat"):
        try:
            lines = events.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            continue
        if counts := [line.split()[1] for line in lines if line.startswith("oom_kill ")]:
            return int(counts[0])
    return None


def _end_all(find: Callable[[], set[psutil.Process]], *, grace_s: float) -> int:
    known = find()
    if grace_s > 0:
        _signal(known, signal.SIGTERM)
        _wait(known, timeout_s=grace_s)
    for _ in range(_KILL_ROUNDS):
        known |= find()  # a process may start others while it is being ended
        living = {process for process in known if _lives(process)}
        if not living:
            break
        _signal(living, signal.SIGKILL)
        _wait(living, timeout_s=0.5)
    return len(known)


def _signal(processes: set[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # refuses a pid that was given to another process since
        except psutil.Error:
            continue


def _wait(processes: set[psutil.Process], *, timeout_s: float) -> None:
    # Not psutil.wait_procs: it would take the worker's exit code away from its Popen object.
    deadline = time.monotonic() + timeout_s
    while any(_lives(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

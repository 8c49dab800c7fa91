"""Processes for a report's slow libraries. They end with the report, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

from bench.environment import child_environ
from bench.errors import OutputError

PARENT = "BENCH_PARENT"
"""Environment variable with our process id: such a process calls ``bench.environment.die_with_parent`` with it."""
LIMIT_S = 300.0
"""Longer takes none, on a busy machine either: it hangs."""
_running: list[subprocess.Popen[bytes]] = []
_warm: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}


def warm_up(*arguments: str, environ: Mapping[str, str] | None = None) -> None:
    """Start a process before it is known whether it is needed; ``start`` then takes it."""
    _warm[arguments] = start(*arguments, environ=environ)


def start(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """A Python process with these arguments and a pipe to each of its streams.

    In a session of its own, as Ctrl-C in a terminal is for us to answer."""
    if arguments in _warm:
        return _warm.pop(arguments)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-P", *arguments],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env={**child_environ(), **(environ or {}), PARENT: str(os.getpid())},
        start_new_session=True,
    )
    _running.append(process)
    return process


def communicate(process: subprocess.Popen[bytes], told: bytes, what: str) -> bytes:
    """What it writes to stdout, given ``told``.

    Raises OutputError if it is killed or lacks a package, RuntimeError if it fails in another way or hangs.
    """
    try:
        out, err = process.communicate(told, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RuntimeError(f"{what} took longer than {LIMIT_S:g} s") from None
    finally:
        with suppress(ValueError):
            _running.remove(process)
    if process.returncode < 0:
        raise OutputError(f"{what} was ended by signal {-process.returncode}; run the same command with --report-only")
    if process.returncode:
        said = err.decode(errors="replace").strip()
        last = said.rpartition("\n")[2]
        if last.startswith(("ModuleNotFoundError", "ImportError")):
            raise OutputError(f"{what} failed: {last}; install this program once more with what it needs")
        raise RuntimeError(f"{what} failed:\n{said}")
    return out


def end_all() -> None:
    """End what still runs: it was started in vain, or the report failed or was interrupted."""
    _warm.clear()
    while _running:
        process = _running.pop()
        process.kill()
        process.wait()

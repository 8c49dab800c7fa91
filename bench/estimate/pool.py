"""Estimates of many cells, by ``python -m bench.estimate`` processes side by side. Imports nothing heavy itself."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, cast

import psutil

from bench.environment import child_environ, usable_cores
from bench.records.costs import Estimate
from bench.spec.cell import Cell

ESTIMATOR = (sys.executable, "-P", "-m", "bench.estimate")
NEEDED_BYTES = 2**30
"""Host memory of one process; no more are started than fit into what is free."""
_WITHOUT_COSTS = {"cell_id", "spec", "scale", "label", "labels", "seed", "run"}
"""Fields of a cell that do not affect its costs."""
_TAIL_BYTES = 4096
_TAIL_LINES = 15

OnDone = Callable[[Cell, Estimate, str | None], None]
"""Called for every cell with its estimate and, after an internal error, the reason and the end of the process's log."""


def estimate_all(
    cells: Sequence[Cell],
    *,
    gpu: str,
    max_batch_bytes: int | None = None,
    counts_only: bool = False,
    on_done: OnDone = lambda *_: None,
    estimator: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """``cell_id`` -> estimate; cells that differ only in their seeds share an estimate.

    ``gpu``: a key of ``bench.estimate.gpus.GPUS``. With ``max_batch_bytes`` the largest batch that fits is searched
    for; with ``counts_only`` only parameters and the adapter's size are counted. A process that dies leaves its cell
    without an estimate (``Estimate.refused`` says why) and is replaced. No process outlives this function.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(cell.model_dump_json(exclude=_WITHOUT_COSTS), []).append(cell)
    options: dict[str, object] = {"gpu": gpu, "max_batch_bytes": max_batch_bytes, "counts_only": counts_only}
    pool = _Pool(alike, options, on_done, estimator or ESTIMATOR)
    try:
        pool.run(min(usable_cores(), len(alike), max(psutil.virtual_memory().available // NEEDED_BYTES, 1)))
    finally:
        pool.end()
    return pool.estimates


class _Process:
    """An estimator process and its present cells."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.cells: list[Cell] = []
        self._received = b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._log_start = 0
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=child_environ() | {"BENCH_PARENT": str(os.getpid())},
            start_new_session=True,  # this process handles Ctrl-C in the terminal
        )
        self._stdin, self.stdout = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)

    def ask(self, cells: list[Cell], options: dict[str, object]) -> None:
        """Send the first of ``cells``, which are alike."""
        if self.cells:  # what was written at the start, such as why it ended, belongs to the first cell
            self._log_start = self._log.seek(0, os.SEEK_END)
        self.cells = cells
        request = json.dumps({"cell": cells[0].model_dump(mode="json")} | options) + "\n"
        with suppress(BrokenPipeError):  # it died: stdout is at its end
            self._stdin.write(request.encode())
            self._stdin.flush()

    def receive(self) -> tuple[Estimate, str | None, bool] | None:
        """Estimate, reason of a failure, and whether the process lives; None until the answer is whole.

        Called when stdout is readable; never waits, since a process may stop in the middle of a line.
        """
        read = os.read(self.stdout.fileno(), 1 << 16)
        self._received += read
        line, newline, rest = self._received.partition(b"\n")
        if not newline and read:
            return None
        self._received = rest
        if not newline:
            code = self._process.wait()
            ending = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return *self._failure(f"the process that estimated it ended ({ending})"), False
        answer = json.loads(line)
        assert answer["cell_id"] == self.cells[0].cell_id, "answers come in the order of the requests"
        if "estimate" in answer:
            return Estimate.model_validate(answer["estimate"]), None, True
        return *self._failure(f"the estimate failed ({answer['error']})"), True

    def _failure(self, reason: str) -> tuple[Estimate, str]:
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, end - _TAIL_BYTES))
        tail = "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])
        return Estimate(refused=[reason]), f"{reason}; its last output:\n{tail}" if tail else reason

    def end(self) -> None:
        """Kill the process, if need be."""
        self._process.kill()
        self._process.wait()
        self.stdout.close()
        self._log.close()
        with suppress(BrokenPipeError):  # an unread request
            self._stdin.close()


class _Pool:
    """The cells still to estimate and the processes at work."""

    def __init__(
        self, alike: dict[str, list[Cell]], options: dict[str, object], on_done: OnDone, argv: Sequence[str]
    ) -> None:
        self.estimates: dict[str, Estimate] = {}
        self._waiting = deque(alike.values())
        self._options = options
        self._on_done = on_done
        self._argv = argv
        self._processes: set[_Process] = set()
        self._selector = selectors.DefaultSelector()

    def run(self, processes: int) -> None:
        for _ in range(processes):
            self._start()
        while self._processes:
            for key, _ in self._selector.select():
                self._take_answer(key.data)

    def end(self) -> None:
        for process in self._processes:
            process.end()
        self._selector.close()

    def _start(self) -> None:
        process = _Process(self._argv)
        self._processes.add(process)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        process.ask(self._waiting.popleft(), self._options)

    def _take_answer(self, process: _Process) -> None:
        answer = process.receive()
        if answer is None:
            return
        estimate, failure, lives = answer
        for cell in process.cells:
            self.estimates[cell.cell_id] = estimate
            self._on_done(cell, estimate, failure)
        if lives and self._waiting:
            process.ask(self._waiting.popleft(), self._options)
            return
        self._selector.unregister(process.stdout)
        self._processes.discard(process)
        process.end()
        if self._waiting:
            self._start()

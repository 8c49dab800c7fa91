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
from typing import IO

import psutil

from bench.environment import child_environ, usable_cores
from bench.records.costs import Estimate
from bench.spec.cell import Cell

ESTIMATOR = (sys.executable, "-P", "-m", "bench.estimate")
NEEDED_BYTES = 2**30
"""Host memory of one process; no more are started than fit into what is free."""
_TAIL_BYTES = 4096
_TAIL_LINES = 15

OnDone = Callable[[Cell, Estimate, str | None], None]
"""Told of every cell: its estimate and, if that failed through a fault of ours, what the process said last."""


def estimate_all(
    cells: Sequence[Cell],
    *,
    gpu: str,
    max_batch_bytes: int | None = None,
    counts_only: bool = False,
    on_done: OnDone = lambda *_: None,
    estimator: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """The estimate of each cell by its ``cell_id``; cells that differ in their seeds only share one.

    ``gpu``: a name of ``bench.estimate.gpus.GPUS``. With ``max_batch_bytes`` the largest batch that fits is looked for,
    with ``counts_only`` nothing but parameters and the adapter's size.
    A process that dies costs its cell the estimate (``Estimate.refused`` says why) and is replaced. However this
    function ends, also by KeyboardInterrupt, no process is left.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_costs_of(cell), []).append(cell)
    options: dict[str, object] = {"gpu": gpu, "max_batch_bytes": max_batch_bytes, "counts_only": counts_only}
    pool = _Pool(alike, options, on_done, estimator or ESTIMATOR)
    try:
        pool.run(min(usable_cores(), len(alike), max(psutil.virtual_memory().available // NEEDED_BYTES, 1)))
    finally:
        pool.end()
    return pool.found


def _costs_of(cell: Cell) -> str:
    """Equal for cells whose costs are: what names a cell, its seed and how it is run decide nothing."""
    return cell.model_dump_json(exclude={"cell_id", "spec", "scale", "label", "labels", "seed", "run"})


class _Process:
    """One estimator and the cells it works on."""

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
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self.stdout = self._process.stdin, self._process.stdout

    def ask(self, cells: list[Cell], options: dict[str, object]) -> None:
        """Hand over the first of ``cells``, which are alike."""
        if self.cells:  # what it wrote while it started, why it ended perhaps, is told of its first cell
            self._log_start = self._log.seek(0, os.SEEK_END)
        self.cells = cells
        request = json.dumps({"cell": cells[0].model_dump(mode="json")} | options) + "\n"
        with suppress(BrokenPipeError):  # it died: the end of its stdout tells
            self._stdin.write(request.encode())
            self._stdin.flush()

    def receive(self) -> bytes | None:
        """What came on stdout: a whole line, nothing yet (empty), or None if the process is gone."""
        read = os.read(self.stdout.fileno(), 1 << 16)
        self._received += read
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return b"" if read else None
        self._received = rest
        return line

    def tail(self) -> str:
        """Last lines that it wrote to stderr about its present cell."""
        end = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(self._log_start, end - _TAIL_BYTES))
        return "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])

    def ending(self) -> str:
        """How the process, which is gone, ended."""
        code = self._process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Kill it, if need be."""
        self._process.kill()
        self._process.wait()
        self.stdout.close()
        self._log.close()
        with suppress(BrokenPipeError):  # what it was still to read
            self._stdin.close()


class _Pool:
    """The cells on their way to an estimate."""

    def __init__(
        self, alike: dict[str, list[Cell]], options: dict[str, object], on_done: OnDone, argv: Sequence[str]
    ) -> None:
        self.found: dict[str, Estimate] = {}
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
                self._look(key.data)

    def end(self) -> None:
        for process in self._processes:
            process.end()
        self._selector.close()

    def _start(self) -> None:
        process = _Process(self._argv)
        self._processes.add(process)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        process.ask(self._waiting.popleft(), self._options)

    def _look(self, process: _Process) -> None:
        line = process.receive()
        if line == b"":
            return
        if line is None:
            reason = f"the process that estimated it ended ({process.ending()})"
            self._done(process, Estimate(refused=[reason]), _with_tail(reason, process))
        else:
            self._answered(process, json.loads(line))
        if line is not None and self._waiting:
            process.ask(self._waiting.popleft(), self._options)
            return
        self._selector.unregister(process.stdout)
        self._processes.discard(process)
        process.end()
        if self._waiting:
            self._start()

    def _answered(self, process: _Process, answer: dict[str, object]) -> None:
        assert answer["cell_id"] == process.cells[0].cell_id, "answers come in the order of the requests"
        if "estimate" in answer:
            self._done(process, Estimate.model_validate(answer["estimate"]), None)
        else:
            reason = f"the estimate failed ({answer['error']})"
            self._done(process, Estimate(refused=[reason]), _with_tail(reason, process))

    def _done(self, process: _Process, estimate: Estimate, failure: str | None) -> None:
        for cell in process.cells:
            self.found[cell.cell_id] = estimate
            self._on_done(cell, estimate, failure)


def _with_tail(reason: str, process: _Process) -> str:
    tail = process.tail()
    return f"{reason}; the last it said:\n{tail}" if tail else reason

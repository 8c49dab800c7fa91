"""A sweep over fake workers: makers of cells, the runner in this process or one of its own, and what was seen."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench.datasets import easy_vqa
from bench.environment import Gpu
from bench.execution.contracts import Executor, Progress
from bench.execution.processes import marked
from bench.execution.progress import Reporter
from bench.execution.runner import CheckBudget, RunSummary, run
from bench.executors.local import LocalExecutor
from bench.records.record import CellRecord, Failure
from bench.records.store import ResultsFile
from bench.spec.cell import Cell

FAKE_WORKER = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


def make_cell(label: str, *, lr: float = 1e-3, **run_settings: Any) -> Cell:
    """A valid cell; the fake worker does what the label's first word says."""
    content: dict[str, Any] = {
        "spec": "faults",
        "scale": "demo",
        "label": label,
        "labels": {},
        "parts": {"vit": "F", "jtm": "F", "dec": "T"},
        "seed": 1,
        "model": {"family": "miss", "preset": "tiny"},
        "data": {"name": "easy_vqa", "train_limit": 16, "test_limit": 8},
        "train": {"steps": 3, "batch_size": 4, "optimizer": {"lr": lr}},
        "evaluate": {"batch_size": 4, "num_beams": 1},
        "methods": {},
        "run": {"device": "cpu", "threads": 1} | run_settings,
    }
    cell_id = hashlib.sha256(f"{label} {lr}".encode()).hexdigest()[:16]
    return Cell.model_validate(content | {"cell_id": cell_id})


def cells_ok(count: int, **run_settings: Any) -> list[Cell]:
    """``ok 1``, ``ok 2``, ..."""
    return [make_cell(f"ok {number}", **run_settings) for number in range(1, count + 1)]


@cache
def data_digest() -> str:
    """Of the data set of the cells."""
    return easy_vqa.digest(easy_vqa.Settings(name="easy_vqa"))


class Listening(Reporter):
    """Keeps what it is told, and shows nothing."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.told: list[str] = []
        self.messages: list[str] = []

    def begin(self, *, cells: int, finished: int, slots: int) -> None:
        self.told.append(f"begin {cells} {finished} {slots}")

    def cell_started(self, cell: Cell) -> None:
        self.told.append(f"start {cell.label}")

    def cell_progress(self, cell: Cell, progress: Progress) -> None:
        pass

    def cell_ended(self, cell: Cell, record: CellRecord) -> None:
        self.told.append(f"{record.status} {cell.label}")

    def message(self, text: str) -> None:
        self.told.append(text)
        self.messages.append(text)

    def end(self) -> None:
        self.told.append("end")


class Sweep:
    """A results folder and the runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.file = ResultsFile(self.results / "demo.jsonl")
        self.environ = {"FAKE_NOTES": str(folder / "notes.jsonl"), "FAKE_DATA_DIGEST": data_digest()}
        self.listening = Listening()
        """Of the last run in this process."""

    @property
    def told(self) -> list[str]:
        """What the last run in this process reported."""
        return self.listening.told

    def job(self, cell: Cell) -> Path:
        """The cell's job folder."""
        return self.results / "demo" / cell.cell_id

    def attempt(self, cell: Cell) -> Path:
        """Folder of an attempt beside a result."""
        return self.job(cell).with_name(f"{cell.cell_id}.attempt")

    def run(
        self,
        cells: list[Cell],
        *,
        fresh: bool = False,
        gpus: tuple[Gpu, ...] = (),
        reporter: Listening | None = None,
        check_budget: CheckBudget | None = None,
        worker: Sequence[str] = FAKE_WORKER,
        executor: str | Executor | None = None,
    ) -> RunSummary:
        """Run in this process, with fake workers unless told otherwise."""
        self.listening = reporter or Listening()
        return run(
            cells,
            results=self.results,
            executor=executor or LocalExecutor(gpus, worker=worker),
            fresh=fresh,
            reporter=self.listening,
            check_budget=check_budget,
        )

    def error(self, cell: Cell, **options: Any) -> Failure:
        """Run a cell; why it has no result."""
        error = self.run([cell], **options).records[0].error
        assert error is not None
        return error

    def start(self, cells: list[Cell]) -> subprocess.Popen[bytes]:
        """Run in another process, which tests then hurt."""
        listed = self.folder / "cells.json"
        listed.write_text(json.dumps([cell.model_dump(mode="json") for cell in cells]))
        argv = [sys.executable, __file__, str(listed), str(self.results)]
        return subprocess.Popen(argv, stderr=(self.folder / "stderr").open("wb"), start_new_session=True)

    def stderr(self) -> str:
        """What that process printed."""
        return (self.folder / "stderr").read_text()

    def notes(self, event: str = "start") -> list[dict[str, Any]]:
        """What the workers noted, in order."""
        path = Path(self.environ["FAKE_NOTES"])
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["event"] == event]

    def started(self) -> list[str]:
        """Labels of the cells that were started, in order, since the last call."""
        labels = [note["label"] for note in self.notes()]
        Path(self.environ["FAKE_NOTES"]).unlink(missing_ok=True)
        return labels

    def stored(self) -> dict[str, CellRecord]:
        """Label -> record that counts."""
        return {record.label: record for record in self.file.read().values()}

    def statuses(self) -> dict[str, str]:
        """Label -> its status."""
        return {label: str(record.status) for label, record in self.stored().items()}

    def processes(self) -> set[int]:
        """Ids of living processes of any cell of this sweep."""
        return {process.pid for process in marked(self.results)}


def wait_until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def maps(pid: int) -> str:
    """What a process has mapped: which libraries it has loaded. Empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def environ_of(process: psutil.Process) -> dict[str, str]:
    """Empty for a process that is gone, ended, or another user's."""
    try:
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except (psutil.Error, OSError):
        return {}


def processes_with(**environ: str) -> list[psutil.Process]:
    """Living processes whose environment has these variables."""
    return [one for one in psutil.process_iter() if environ.items() <= environ_of(one).items()]


def _main(listed: str, results: str) -> int:
    cells = [Cell.model_validate(content) for content in json.loads(Path(listed).read_text())]
    executor = LocalExecutor((), worker=FAKE_WORKER) if "FAKE_NOTES" in os.environ else "local"
    try:
        return run(cells, results=Path(results), executor=executor, fresh=False, reporter=Reporter()).exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

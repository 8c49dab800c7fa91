"""Job folder of a cell: its files, the worker's result, and the record of a worker that left none."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import environment
from bench.environment import address_space_limit, out_of_memory_line
from bench.execution.contracts import EVENTS_FILE, ProcessExit, Progress, now
from bench.execution.processes import end_leftovers
from bench.files import read_regular, write_atomic
from bench.format import counted
from bench.records.costs import Estimate
from bench.records.record import HOST_OUT_OF_MEMORY, CellRecord, Failure, Status
from bench.records.store import ResultsFile, write_error
from bench.spec.cell import Cell

ATTEMPT = ".attempt"
"""Suffix of the folder of an attempt at a cell that has a result."""
_TAIL_LINES = 30
_TAIL_BYTES = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A cell and the folder of an attempt at it: ``results/<spec>/<scale>/<cell_id>``, or a folder beside it."""

    cell: Cell
    folder: Path
    data_digest: str | None
    weights_digest: str | None

    def beside(self) -> Job:
        """Another attempt in its own folder; the present result stays until the attempt has a result."""
        return replace(self, folder=self.folder.with_name(self.folder.name + ATTEMPT))

    def prepare(self) -> None:
        """Leave only a fresh ``cell.json``, so that no file of an earlier attempt is taken for one of this attempt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "progress.json", "predictions.jsonl", "log.txt", EVENTS_FILE):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "adapter", ignore_errors=True)
        write_atomic(self.folder / "cell.json", self.cell.model_dump_json().encode())

    def take_over(self, attempt: Job) -> None:
        """Replace this folder by the attempt's; ``settle`` finishes an exchange that a kill interrupted."""
        if attempt.folder == self.folder:
            return
        self.settle()
        if self.folder.exists():
            self.folder.rename(self._replaced)
        attempt.folder.rename(self.folder)
        self.settle()

    def settle(self) -> None:
        """Finish an interrupted exchange of folders. Raises OSError if a folder cannot be renamed."""
        if not self._replaced.exists():
            return
        if not self.folder.exists():
            attempt = self.beside().folder
            (attempt if attempt.exists() else self._replaced).rename(self.folder)
        shutil.rmtree(self._replaced, ignore_errors=True)
        if self._replaced.exists():  # its name is needed again; a network drive keeps files that are still open
            names = (self._replaced.with_name(f"{self._replaced.name}.{number}") for number in count(1))
            self._replaced.rename(next(path for path in names if not path.exists()))

    @property
    def _replaced(self) -> Path:
        return self.folder.with_name(self.folder.name + ".replaced")

    def result(self) -> CellRecord | None:
        """The worker's record; None if there is none, it is torn, or it belongs to another cell."""
        try:
            record = CellRecord.model_validate_json(read_regular(self.folder / "result.json"))
        except (OSError, ValidationError):
            return None
        return record if record.cell_id == self.cell.cell_id else None

    def progress(self) -> Progress | None:
        """Last progress of the worker."""
        try:
            return Progress(**json.loads(read_regular(self.folder / "progress.json")))
        except (OSError, ValueError, TypeError):
            return None

    def log_tail(self) -> str:
        """Last lines of the log."""
        try:
            with (self.folder / "log.txt").open("rb") as file:
                file.seek(max(file.seek(0, 2) - _TAIL_BYTES, 0))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def ended(self, how: ProcessExit, *, device: str, started_at: str) -> CellRecord:
        """The worker's record, or a record of how its process ended."""
        if record := self.result():
            return record
        if how.passed_limit is not None:
            run, status, kind = self.cell.run, Status.TIMEOUT, "Timeout"
            message = f"reported no progress for longer than run.no_progress_limit_s = {run.no_progress_limit_s:g}"
            if how.passed_limit == "wall_clock":
                message = f"ran longer than run.wall_clock_limit_s = {run.wall_clock_limit_s:g}"
        elif how.host_out_of_memory:
            message = "the kernel killed the worker for want of host memory"
            status, kind = Status.OOM, HOST_OUT_OF_MEMORY
        elif -how.returncode not in (signal.SIGKILL, signal.SIGTERM) and (line := out_of_memory_line(self.log_tail())):
            message = f"the worker ran out of host memory: {line}{address_space_limit()}"
            status, kind = Status.OOM, HOST_OUT_OF_MEMORY
        else:
            status, kind = Status.CRASHED, "Signal" if how.returncode < 0 else "NoResult"
            message = self._crash(how.returncode)
        return self._failed(status, kind, message, device, started_at)

    def interrupted(self, *, device: str, started_at: str) -> CellRecord:
        """The worker's record, or a record of the interruption."""
        return self.result() or self._failed(
            Status.INTERRUPTED, "Interrupted", "stopped by the user", device, started_at
        )

    def skipped(self, reason: str, estimate: Estimate) -> CellRecord:
        """The record of a cell that was not started because it cannot fit the budget."""
        failure = Failure(type="DoesNotFit", message=reason)
        return self._record(
            status=Status.SKIPPED, error=failure, params=estimate.params, estimate=estimate, started_at=now()
        )

    def _crash(self, returncode: int) -> str:
        log = f"see {self.folder / 'log.txt'}"
        if returncode >= 0:
            return f"the worker ended with exit code {returncode} and left no result; {log}"
        known = -returncode in set(signal.Signals)
        name = signal.Signals(-returncode).name if known else f"signal {-returncode}"
        hint = ""
        if returncode == -signal.SIGKILL:
            hint = " (if nobody did that, the machine may have run out of memory: see dmesg)"
        return f"the worker was killed by {name}{hint}; {log}"

    def _failed(self, status: Status, kind: str, message: str, device: str, started_at: str) -> CellRecord:
        progress = self.progress()
        counted = progress is not None and progress.phase in ("train", "eval")
        failure = Failure(
            type=kind,
            message=message,
            phase=progress.phase if progress else None,
            step=progress.done if progress and counted else None,
            log_tail=self.log_tail(),
        )
        record = self._record(status=status, error=failure, started_at=started_at)
        return record.model_copy(update={"environment": record.environment | {"device": device}})

    def _record(self, **fields: Any) -> CellRecord:
        return CellRecord(
            **self.cell.identity(),
            data_digest=self.data_digest,
            weights_digest=self.weights_digest,
            environment=environment.describe(),
            finished_at=now(),
            **fields,
        )


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What ``forget`` removed."""

    records: int
    folders: int
    cell_ids: frozenset[str] = frozenset()
    """Cells that had records or folders."""

    def __str__(self) -> str:
        """``3 records and 1 job folder``."""
        return f"{counted(self.records, 'record')} and {counted(self.folders, 'job folder')}"


def forget(cells: Sequence[Cell], *, results: Path, warn: Callable[[str], None]) -> Forgotten:
    """Remove the cells' lines from ``<scale>.jsonl`` in ``results``, older lines too, and their folders beside it.

    Every other line stays as it is, even a damaged one. Raises RecordError (locked, not a records file, not writable).
    """
    ids, folder = {cell.cell_id for cell in cells}, results / cells[0].scale
    file = ResultsFile(results / f"{cells[0].scale}.jsonl", warn=warn)
    if not results.is_dir():
        return Forgotten(0, 0)
    with file.lock():
        file.history()  # a file that cannot be read raises before anything is removed
        end_leftovers(folder)  # of a killed runner: they would write into the folders
        folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        folders = [path for path in folders if path.name.partition(".")[0] in ids]
        for path in folders:  # before the records: an interrupted call can be repeated, and no folder restores a record
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise write_error(error, path, "no record was removed") from error
        removed = file.remove(ids)
    return Forgotten(
        len(removed), len(folders), frozenset([*removed, *(path.name.partition(".")[0] for path in folders)])
    )

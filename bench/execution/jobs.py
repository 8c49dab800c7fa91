"""A cell's job folder: what the runner puts in, what the worker left, and the record of a worker that left none."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from pydantic import ValidationError

from bench import environment
from bench.environment import address_space_limit, last_words
from bench.files import read_regular, write_atomic
from bench.plugins.execution import EVENTS_FILE, Ended, Progress, now
from bench.records.record import HOST_OUT_OF_MEMORY, CellRecord, Estimate, Failure, Status
from bench.spec.cell import Cell

ATTEMPT = ".attempt"
"""Ending of the folder of an attempt at a cell that has a result."""
_TAIL_LINES = 30
_TAIL_BYTES = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One cell and the folder of an attempt at it: ``results/<spec>/<scale>/<cell_id>``, or one beside it."""

    cell: Cell
    folder: Path
    data_digest: str | None
    weights_digest: str | None

    def beside(self) -> Job:
        """Another attempt, in a folder of its own, so that what there is stays until the attempt has a result."""
        return replace(self, folder=self.folder.with_name(self.folder.name + ATTEMPT))

    def prepare(self) -> None:
        """Leave only a fresh ``cell.json``, so that nothing of an earlier attempt can pass for this one's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "progress.json", "predictions.jsonl", "log.txt", EVENTS_FILE):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "adapter", ignore_errors=True)
        write_atomic(self.folder / "cell.json", self.cell.model_dump_json().encode())

    def take_over(self, attempt: Job) -> None:
        """Put the attempt's folder in the place of this one; ``settle`` finishes what a kill cuts off."""
        if attempt.folder == self.folder:
            return
        self.settle()
        if self.folder.exists():
            self.folder.rename(self._replaced)
        attempt.folder.rename(self.folder)
        self.settle()

    def settle(self) -> None:
        """End an exchange of folders that was cut off. Raises OSError if a folder cannot be renamed."""
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
        """The record the worker left; None if there is none, it is torn, or it belongs to another cell."""
        try:
            record = CellRecord.model_validate_json(read_regular(self.folder / "result.json"))
        except (OSError, ValidationError):
            return None
        return record if record.cell_id == self.cell.cell_id else None

    def progress(self) -> Progress | None:
        """What the worker last said."""
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

    def ended(self, how: Ended, *, device: str, started_at: str) -> CellRecord:
        """The worker's record, or one made from how it ended."""
        left = self.result()
        if left is not None:
            return left
        if how.passed_limit is not None:
            return self._record(Status.TIMEOUT, "Timeout", self._limit(how), device, started_at)
        if how.host_out_of_memory:
            message = "the kernel killed the worker for want of host memory"
            return self._record(Status.OOM, HOST_OUT_OF_MEMORY, message, device, started_at)
        said = last_words(self.log_tail()) if -how.returncode not in (signal.SIGKILL, signal.SIGTERM) else None
        if said is not None:
            message = f"the worker ran out of host memory: {said}{address_space_limit()}"
            return self._record(Status.OOM, HOST_OUT_OF_MEMORY, message, device, started_at)
        kind = "Signal" if how.returncode < 0 else "NoResult"
        return self._record(Status.CRASHED, kind, self._crash(how.returncode), device, started_at)

    def interrupted(self, *, device: str, started_at: str) -> CellRecord:
        """The worker's record, or one that says that the user stopped it."""
        message = "stopped by the user"
        return self.result() or self._record(Status.INTERRUPTED, "Interrupted", message, device, started_at)

    def skipped(self, reason: str, estimate: Estimate) -> CellRecord:
        """The record of a cell that was not started, since it cannot fit the budget."""
        moment = now()
        return CellRecord(
            **self.cell.identity(),
            status=Status.SKIPPED,
            error=Failure(type="DoesNotFit", message=reason),
            params=estimate.params,
            estimate=estimate,
            data_digest=self.data_digest,
            weights_digest=self.weights_digest,
            environment=environment.describe(),
            started_at=moment,
            finished_at=moment,
        )

    def _limit(self, how: Ended) -> str:
        run = self.cell.run
        if how.passed_limit == "wall_clock":
            return f"ran longer than run.wall_clock_limit_s = {run.wall_clock_limit_s:g}"
        return f"reported no progress for longer than run.no_progress_limit_s = {run.no_progress_limit_s:g}"

    def _crash(self, returncode: int) -> str:
        log = f"see {self.folder / 'log.txt'}"
        if returncode >= 0:
            return f"the worker ended with exit code {returncode} and left no result; {log}"
        hint = ""
        if returncode == -signal.SIGKILL:
            hint = " (if nobody did that, the machine may have run out of memory: see dmesg)"
        return f"the worker was killed by {_signal_name(-returncode)}{hint}; {log}"

    def _record(self, status: Status, kind: str, message: str, device: str, started_at: str) -> CellRecord:
        progress = self.progress()
        counted = progress is not None and progress.phase in ("train", "eval")
        failure = Failure(
            type=kind,
            message=message,
            phase=progress.phase if progress else None,
            step=progress.done if progress and counted else None,
            log_tail=self.log_tail(),
        )
        return CellRecord(
            **self.cell.identity(),
            status=status,
            error=failure,
            data_digest=self.data_digest,
            weights_digest=self.weights_digest,
            environment=environment.describe() | {"device": device},
            started_at=started_at,
            finished_at=now(),
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

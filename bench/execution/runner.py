"""Run cells: skip what is done, execute the rest, append each record as soon as its cell ends."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bench import registry
from bench.errors import INTERRUPTED, RecordError
from bench.execution.contracts import Executor, ExecutorPlugin, RunningCell, now
from bench.execution.inputs import Inputs, inputs_of, why_not_done, why_stale
from bench.execution.jobs import Job
from bench.execution.processes import end_leftovers
from bench.execution.progress import Reporter, outcome
from bench.execution.tracking import Tracking, tracking
from bench.records.costs import Estimate
from bench.records.record import CellRecord, Status
from bench.records.store import ResultsFile, write_error
from bench.spec.cell import Cell

POLL_S = 0.1
GRACE_S = 5.0
NEEDED_BYTES = 16 << 20
"""No cell is started with less free disk space than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OverBudget:
    """Why a cell cannot fit the budget."""

    reason: str
    estimate: Estimate


CheckBudget = Callable[[Sequence[Cell]], Mapping[str, OverBudget]]
"""Of the cells that would run, those that cannot fit, by ``cell_id``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """Outcome of the cells of a run."""

    records: list[CellRecord]
    """Records in the order of the cells; a cell that was not reached has none."""
    stored: Mapping[str, CellRecord] = field(default_factory=dict)
    """``cell_id`` -> the record that counts, of every cell in the results file."""
    cells: int
    """Number of cells of the run."""
    finished_before: int
    """Number of them that earlier runs had finished."""
    interrupted: bool = False
    """Whether Ctrl-C or SIGTERM ended the run before its last cell."""

    @property
    def exit_code(self) -> int:
        """0: all ok (out of memory is a result); 1: some cell failed or diverged; 130: interrupted."""
        if self.interrupted:
            return INTERRUPTED
        successes = (Status.OK, Status.OOM, Status.SKIPPED)
        return 0 if len(self.records) == self.cells and all(r.status in successes for r in self.records) else 1

    def __str__(self) -> str:
        """``10 cells: 8 ok, 1 crashed, 1 not run (4 finished before)``."""
        counts = {str(status): sum(r.status is status for r in self.records) for status in Status}
        counts["not run"] = self.cells - len(self.records)
        counted = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        before = f" ({self.finished_before} finished before)" if self.finished_before else ""
        return f"{self.cells} cells: {counted}{before}"


def run(
    cells: Sequence[Cell],
    *,
    results: Path,
    executor: str | Executor,
    fresh: bool,
    reporter: Reporter,
    check_budget: CheckBudget | None = None,
) -> RunSummary:
    """Run the cells of one spec at one scale; ``results`` is the spec's folder, records go to ``<scale>.jsonl`` in it.

    ``check_budget`` sees the cells that are not done; those it names get ``skipped`` records.
    The first Ctrl-C (or SIGTERM) ends the running cells and returns with ``interrupted``; the second raises
    KeyboardInterrupt once they are killed. Raises RecordError (locked, disk full), DataError, WeightsError, SpecError.
    """
    if not cells:
        return RunSummary(records=[], cells=0, finished_before=0)
    spec, scale = cells[0].spec, cells[0].scale
    assert all((cell.spec, cell.scale) == (spec, scale) for cell in cells), "one results file per spec and scale"
    file = ResultsFile(results / f"{scale}.jsonl", warn=lambda text: reporter.message(f"warning: {text}"))
    with file.lock(), tracking(cells[0].run.trackers, results=results, say=reporter.message) as trackers:
        end_leftovers(results / scale)  # of a killed runner: the lock says that no other runs
        inputs = inputs_of(cells)
        jobs = [
            Job(
                cell=cell,
                folder=results / scale / key,
                data_digest=inputs[key].data_digest,
                weights_digest=inputs[key].weights_digest,
            )
            for key, cell in {cell.cell_id: cell for cell in cells}.items()
        ]
        stored = recover_results(file, jobs, reporter, trackers)
        done = (
            {} if fresh else {k: stored[k] for k, each in inputs.items() if why_not_done(stored.get(k), each) is None}
        )
        todo = [job for job in jobs if job.cell.cell_id not in done]
        queue = _Queue(file=file, reporter=reporter, trackers=trackers, stored=stored, records=dict(done))
        if check_budget and todo:
            todo = queue.skip(todo, check_budget([job.cell for job in todo]))
        _warn_of_replaced([stored[job.cell.cell_id] for job in todo if job.cell.cell_id in stored], inputs, reporter)
        if todo:
            if isinstance(executor, str):
                plugin: ExecutorPlugin = registry.load("executors", executor)
                executor = plugin.create([job.cell for job in todo])
            queue.run(todo, executor)
    return RunSummary(
        records=[queue.records[cell.cell_id] for cell in cells if cell.cell_id in queue.records],
        stored=stored,
        cells=len(cells),
        finished_before=sum(cell.cell_id in done for cell in cells),
        interrupted=queue.interrupted,
    )


def recover_results(
    file: ResultsFile, jobs: Sequence[Job], reporter: Reporter, trackers: Tracking
) -> dict[str, CellRecord]:
    """Stored records, with results that a killed runner, or one without disk space, did not append."""
    existed = file.path.exists()
    stored = file.read()
    for job in jobs:
        try:
            job.settle()
            for attempt in (job, job.beside()):
                result, known = attempt.result(), stored.get(job.cell.cell_id)
                if result is None or not result.is_final or result == known:
                    continue
                if known is None or (result.finished_at or "") >= (known.finished_at or ""):
                    job.take_over(attempt)
                    file.append(result)
                    stored[result.cell_id] = result
                    if known is not None and known.is_final:
                        trackers.started(job)  # else they would add the result to the earlier one
                    trackers.ended(job, result)
                    reporter.message(f"{job.cell.label}: took over the result of a run that was cut off")
        except OSError as error:
            kept = "a result of a run that was cut off cannot be put there; it is kept, and nothing was run"
            raise write_error(error, job.folder, kept) from error
    if stored and not existed:
        reporter.message(
            f"{file.path} was not there: its results come from the job folders beside it; --forget --scale "
            f"{file.path.stem} removes both"
        )
    return stored


def _warn_of_replaced(records: Sequence[CellRecord], inputs: Mapping[str, Inputs], reporter: Reporter) -> None:
    """Report results that will be replaced, and why: they may belong to another spec of this name."""
    stale = (why_stale(record, inputs[record.cell_id]) for record in records if record.status.is_result)
    if reasons := Counter(reason for reason in stale if reason is not None):
        counted = ", ".join(f"{count} ({reason})" for reason, count in reasons.items())
        reporter.message(
            f"cells with a result run again: {counted}. The earlier records stay in the file, their predictions are "
            "replaced; a spec of other data or models keeps its own under another `name:`, or with --results"
        )


@dataclass(kw_only=True, slots=True)
class _Started:
    target: Job
    """Job folder for the result."""
    job: Job
    """Job folder of the attempt: the target, or one beside an earlier result."""
    handle: RunningCell
    started_at: str


@dataclass(kw_only=True)
class _Queue:
    """Runs the waiting cells and stores their records."""

    file: ResultsFile
    reporter: Reporter
    trackers: Tracking
    stored: dict[str, CellRecord]
    """``cell_id`` -> the record that counts, of each cell in the file."""
    records: dict[str, CellRecord]
    """``cell_id`` -> record of each cell that is done, by this run or before it."""
    interrupted: bool = False
    running: list[_Started] = field(default_factory=list)
    shown_notes: set[str] = field(default_factory=set)

    def run(self, todo: Sequence[Job], executor: Executor) -> None:
        waiting, finished = deque(todo), len(self.records)
        self.reporter.begin(cells=finished + len(todo), finished=finished, slots=executor.slots)
        try:
            with _stop_signals(at_once=executor.in_process) as stop:
                with suppress(_StoppedError):
                    self._until_stopped(waiting, executor, stop)
                if stop:
                    self.interrupted = True
                    if waiting or self.running:
                        self._stop()
        finally:
            for started in self.running:
                started.handle.cancel(grace_s=0)
            self.reporter.end()

    def skip(self, todo: Sequence[Job], over: Mapping[str, OverBudget]) -> list[Job]:
        """Store records of the cells that cannot fit; returns the other jobs."""
        for job in todo:
            if excess := over.get(job.cell.cell_id):
                record = job.skipped(excess.reason, excess.estimate)
                self._store(job, record)
                self.reporter.message(f"{job.cell.label}: {outcome(record)}")
        return [job for job in todo if job.cell.cell_id not in over]

    def _until_stopped(self, waiting: deque[Job], executor: Executor, stop: list[int]) -> None:
        while (waiting or self.running) and not stop:
            while waiting and len(self.running) < executor.slots and not stop:
                self._start(waiting[0], executor)
                waiting.popleft()
            if not self.running and executor.slots == 0:
                self.reporter.message(
                    f"no device is free: workers that no signal ends hold all of them; {len(waiting)} cells were not "
                    "run. See what nvidia-smi and dmesg say (a GPU may need a reset, the machine a restart), then run "
                    "the same command again"
                )
                return
            self._poll()
            if self.running:
                time.sleep(POLL_S)

    def _start(self, target: Job, executor: Executor) -> None:
        started_at = now()
        job = target.beside() if self._has_result(target) and target.folder.exists() else target
        kept = f"{len(self.records)} finished cells are kept"
        try:
            if shutil.disk_usage(folder := self.file.path.parent).free < NEEDED_BYTES:
                raise RecordError(
                    f"disk full: less than {NEEDED_BYTES >> 20} MiB free for {folder}; {kept}; "
                    "free some space and run the same command again"
                )
            job.prepare()
            if not self._has_result(target):
                self.trackers.started(job)
            self.reporter.cell_started(job.cell)
            handle = executor.start(job.cell, job.folder)
        except OSError as error:
            raise write_error(error, job.folder, kept) from error
        self.running.append(_Started(target=target, job=job, handle=handle, started_at=started_at))

    def _poll(self) -> None:
        for started in list(self.running):
            job, device = started.job, started.handle.device
            if (progress := job.progress()) is not None:
                self.reporter.cell_progress(job.cell, progress)
            if (how := started.handle.poll()) is not None:
                if how.stuck_pid is not None:
                    self.reporter.message(
                        f"warning: no signal ends the worker of this cell, process {how.stuck_pid} (it waits in a "
                        f"driver or for a disk); {device} gets no other cell until it is gone"
                    )
                self._finish(started, job.ended(how, device=device, started_at=started.started_at))

    def _stop(self) -> None:
        self.reporter.message("stopping the running cells (Ctrl-C again: at once)")
        for started in list(self.running):
            started.handle.cancel(grace_s=GRACE_S)
            device, started_at = started.handle.device, started.started_at
            self._finish(started, started.job.interrupted(device=device, started_at=started_at))

    def _finish(self, started: _Started, record: CellRecord) -> None:
        self.running.remove(started)
        job = started.job
        if record.is_final:
            try:
                started.target.take_over(job)
            except OSError as error:
                kept = f"the cell's result stays in {job.folder}; the same command takes it over"
                raise write_error(error, started.target.folder, kept) from error
            job = started.target
        kept_earlier = self._keeps_earlier_result(job, record)
        self._store(job, record)
        self.reporter.cell_ended(job.cell, record)
        if kept_earlier:
            self.reporter.message(
                f"{job.cell.label}: no result of this attempt (see {job.folder}); the earlier one is kept"
            )
        self._warn(job.cell, record, expected_device=started.handle.device)

    def _store(self, job: Job, record: CellRecord) -> None:
        """Append the record, then pass it to the trackers, whose copy is worth less."""
        self.file.append(record)
        self.records[record.cell_id] = record
        if self._keeps_earlier_result(job, record):  # and so do the trackers
            return
        if self._has_result(job):
            self.trackers.started(job)
        self.trackers.ended(job, record)
        self.stored[record.cell_id] = record

    def _warn(self, cell: Cell, record: CellRecord, *, expected_device: str) -> None:
        if record.memory.shared:
            held = (record.memory.foreign_bytes or 0) / 2**30
            again = "" if record.is_final else "; the next run tries this cell again"
            self.reporter.message(
                f"warning: other processes held {held:.2f} GiB of the GPU when this cell started (nvidia-smi lists "
                f"them){again}"
            )
        for note in record.notes or ():
            if (text := f"note: {cell.data.name}: {note}") not in self.shown_notes:  # cells of a data set share it
                self.shown_notes.add(text)
                self.reporter.message(text)
        if record.status.is_result and (ran_on := record.environment.get("device")) != expected_device:
            self.reporter.message(
                f"warning: this cell ran on {ran_on}, but {expected_device} is what this machine seems to offer; it "
                "will not count as finished. Check that torch can use the device (driver, build), or set run.device=cpu"
            )

    def _has_result(self, job: Job) -> bool:
        known = self.stored.get(job.cell.cell_id)
        return known is not None and known.is_final

    def _keeps_earlier_result(self, job: Job, record: CellRecord) -> bool:
        """Whether the cell has a result that this record of a failed attempt must not replace."""
        return self._has_result(job) and not record.is_final


class _StoppedError(BaseException):
    """The first Ctrl-C while a cell runs in this process."""


@contextmanager
def _stop_signals(*, at_once: bool) -> Iterator[list[int]]:
    """A list that is empty until the first SIGINT or SIGTERM; the second raises KeyboardInterrupt.

    ``at_once``: the first raises, too, since a cell in this process does not look at the list.
    """
    stop: list[int] = []  # no threading.Event: a second signal while its lock is held would wait for itself

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop:
            raise KeyboardInterrupt
        stop.append(number)
        if at_once:
            raise _StoppedError

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # A shell ignores SIGINT for what it starts in the background.
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)

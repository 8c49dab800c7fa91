"""The record, progress and events of a running cell; a failure keeps everything measured before it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch

from bench import environment
from bench.execution.contracts import EVENTS_FILE, PhaseEnd, Progress, Step, now
from bench.records.costs import Params
from bench.records.record import CellRecord, CutCount, Failure, Memory, Overlap, PhaseMemory, Status
from bench.records.scores import Accuracy, Score
from bench.spec.cell import Cell
from bench.training.device import describe_environment
from bench.training.failure import failure_of, status_of
from bench.training.measure import GpuMeter, HostMemory, TrainLog, cuda_peaks, open_gpu_meter

PREDICTIONS_FILE = "predictions.jsonl"
PROGRESS_FILE = "progress.json"


class Heartbeat:
    """Writes progress for the runner at most every ``interval_s`` seconds; the file's age is the sign of life."""

    def __init__(self, path: Path, *, interval_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._interval_s, self._clock = path, interval_s, clock
        self._written_at: float | None = None
        self._phase: str | None = None

    def beat(self, progress: Progress) -> None:
        """Write the progress if it is time, if the phase has changed or if all is done."""
        now = self._clock()
        ended = progress.total > 0 and progress.done == progress.total
        recent = self._written_at is not None and now - self._written_at < self._interval_s
        if progress.phase == self._phase and recent and not ended:
            return
        self._phase, self._written_at = progress.phase, now
        with suppress(OSError):  # a disk that is full for a moment must not end a training
            beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            beside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            beside.replace(self._path)


class EventLog:
    """Appends events for trackers to a file that the runner reads, at most every ``interval_s`` seconds.

    No tracker runs in a worker: its memory, threads and network would count as the cell's.
    """

    def __init__(self, path: Path, *, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._interval_s, self._clock = path, interval_s, clock
        self._lines: list[str] = []
        self._written_at = clock()

    def add(self, event: Step | PhaseEnd) -> None:
        """Keep the event, and write those kept if it is time."""
        fields = {name: getattr(event, name) for name in event.__slots__}  # asdict copies: twice the time
        self._lines.append(json.dumps(fields))
        if self._clock() - self._written_at >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Write the events kept; they are lost if that fails, as a full disk must not end a training."""
        text = "".join(line + "\n" for line in self._lines)
        self._lines.clear()
        self._written_at = self._clock()
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(text)


class Recorder:
    """The record of a running cell."""

    def __init__(self, cell: Cell, job: Path) -> None:
        self.params: Params | None = None
        self.scores: dict[str, Score] = {}
        self.baselines: dict[str, dict[str, Score]] = {}
        self.overlap: Overlap | None = None
        self.texts_cut: dict[str, CutCount] | None = None
        self.adapter_bytes: int | None = None
        self.data_digest: str | None = None
        self.weights_digest: str | None = None
        self.notes: list[Callable[[], Sequence[str]]] = []
        """Called when the cell ends; return notes for readers of the scores."""
        self.host = HostMemory()
        self.gpu: GpuMeter = open_gpu_meter(torch.device("cpu"))
        self._events = EventLog(job / EVENTS_FILE) if cell.run.trackers else None
        self.training = TrainLog(
            warmup=cell.train.timing_warmup_steps,
            on_start=lambda: self.gpu.mark_energy("start"),  # looked up late: ``use`` replaces the meter
            on_step=self._events.add if self._events else None,
        )
        self._cell = cell
        self._device = torch.device("cpu")
        self._heartbeat = Heartbeat(job / PROGRESS_FILE)
        self._started_at = now()
        self._phase = "setup"
        self._step: int | None = None
        self._phase_s: dict[str, float] = {}
        self._peaks: dict[str, PhaseMemory] = {}
        self._foreign: int | None = None
        self._failure: Failure | None = None
        self._status = Status.OK
        environment.git_revision()  # caches the revision: the checkout may be edited while the cell runs

    def use(self, device: torch.device) -> None:
        """Measure on this device from here on."""
        self.gpu = open_gpu_meter(device)
        has_context = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._foreign = None if has_context else self.gpu.bytes_in_use()  # with a context, some of it is this process's
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # resetting peaks needs it
        self._device = device
        self.gpu.start()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, take its CUDA peaks and report its start and end."""
        self._phase, self._step = name, 0 if name in ("train", "eval") else None
        self._heartbeat.beat(Progress(phase=name))
        print(f"{now()} {name}", flush=True)
        started = time.perf_counter()
        try:
            with cuda_peaks(self._device, self._peaks, name):
                yield
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
        finally:
            seconds = time.perf_counter() - started
            if self._events is not None:
                peaks = self._peaks.get(name, PhaseMemory()).model_dump()
                self._events.add(PhaseEnd(phase=name, seconds=seconds, at=time.time(), **peaks))
                self._events.flush()
        self._phase_s[name] = seconds
        self._step = None

    @contextmanager
    def unmeasured(self) -> Iterator[None]:
        """After the last phase, for what is not part of the cell's costs. If it fails, the cell has no scores."""
        self.host.note()
        self.gpu.stop()
        try:
            yield
        except Exception:
            self.scores, self.baselines = {}, {}
            raise
        finally:
            self.host.restart()

    def beat(self, progress: Progress) -> None:
        """A step or a batch is done."""
        self._step = (self._step or 0) + 1
        self._heartbeat.beat(progress)

    def fail(self, error: Exception) -> None:
        """The cell ends with this error, in the step after those done."""
        self._status = status_of(error)
        self._failure = failure_of(error, phase=self._phase, step=self._step)

    def record(self) -> CellRecord:
        """The record of everything known by now."""
        self.gpu.stop()
        cell, timed = self._cell, bool(self.training.step_s)
        reserved = max((p.reserved_peak_bytes or 0 for p in self._peaks.values()), default=0)
        described = describe_environment(self._device)
        if self._device.type == "cuda":
            described["not_measured"] = self.gpu.not_measured(at_least=reserved, timed=timed)
        return CellRecord(
            **cell.identity(),
            status=self._status,
            error=self._failure,
            params=self.params,
            memory=Memory(
                **{name: self._peaks.get(name, PhaseMemory()) for name in ("load", "train", "eval")},
                nvml_process_peak_bytes=self.gpu.process_peak_bytes(at_least=reserved),
                host_rss_peak_bytes=self.host.peak_bytes,
                foreign_bytes=self._foreign,
            ),
            time=self.training.times().model_copy(
                update={"load_s": self._phase_s.get("load"), "eval_s": self._phase_s.get("eval")}
            ),
            energy_j=self.gpu.energy_j if timed else None,
            task=cell.task.name,
            accuracy=Accuracy.of(self.scores, self.baselines),
            scores=self.scores,
            baselines=self.baselines,
            overlap=self.overlap,
            texts_cut=self.texts_cut,
            loss_curve=self.training.curve,
            steps=self.training.steps,
            adapter_bytes=self.adapter_bytes,
            predictions=f"{cell.scale}/{cell.cell_id}/{PREDICTIONS_FILE}" if self.scores else None,
            data_digest=self.data_digest,
            weights_digest=self.weights_digest,
            notes=[text for ask in self.notes for text in ask()] if self.notes else None,
            environment=described,
            started_at=self._started_at,
            finished_at=now(),
        )

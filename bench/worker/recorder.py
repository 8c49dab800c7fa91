"""What is known about a running cell, so that a failure at any point keeps everything measured before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench import environment
from bench.execution.contracts import EVENTS_FILE, PhaseEnd, Progress, now
from bench.records.costs import Params
from bench.records.record import CellRecord, CutCount, Failure, Memory, Overlap, PhaseMemory, Status, Time
from bench.records.scores import Accuracy, Score
from bench.spec.cell import Cell
from bench.training.device import describe_environment
from bench.training.failure import failure_of, status_of
from bench.training.measure import GpuMeter, HostMemory, Stopwatch, cuda_peaks, open_gpu_meter
from bench.training.train import TrainLog
from bench.worker.events import EventLog
from bench.worker.heartbeat import Heartbeat

PREDICTIONS_FILE = "predictions.jsonl"


class Recorder:
    """The record in the making."""

    def __init__(self, cell: Cell, job: Path) -> None:
        self.params: Params | None = None
        self.scores: dict[str, Score] = {}
        self.baselines: dict[str, dict[str, Score]] = {}
        self.overlap: Overlap | None = None
        self.texts_cut: dict[str, CutCount] | None = None
        self.adapter_bytes: int | None = None
        self.data_digest: str | None = None
        self.weights_digest: str | None = None
        self.noted: list[Callable[[], Sequence[str]]] = []
        """Asked when the cell ends for what a reader of the scores must know."""
        self.host = HostMemory()
        self.gpu: GpuMeter = open_gpu_meter(torch.device("cpu"))
        self._events = EventLog(job / EVENTS_FILE) if cell.run.trackers else None
        self.training = TrainLog(
            watch=Stopwatch(warmup=cell.train.timing_warmup_steps, on_start=self._timing_starts),
            on_step=self._events.add if self._events else None,
        )
        self._cell = cell
        self._device = torch.device("cpu")
        self._heartbeat = Heartbeat(job / "progress.json")
        self._started_at = now()
        self._phase = "setup"
        self._step: int | None = None
        self._phase_s: dict[str, float] = {}
        self._peaks: dict[str, PhaseMemory] = {}
        self._foreign: int | None = None
        self._failure: Failure | None = None
        self._status = Status.OK
        environment.git_revision()  # keeps the answer: the checkout may be edited while the cell runs

    def use(self, device: torch.device) -> None:
        """Measure on this device from here on."""
        self.gpu = open_gpu_meter(device)
        ours = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # with a context of ours not all is others'
        self._foreign = None if ours else self.gpu.bytes_in_use()
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # resetting peaks needs it
        self._device = device
        self.gpu.start()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, take its CUDA peaks and tell the parent about it."""
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
            took = time.perf_counter() - started
            self._tell_end(name, took)
        self._phase_s[name] = took
        self._step = None

    @contextmanager
    def unmeasured(self) -> Iterator[None]:
        """For what is no part of the cell's costs, behind its last phase. If it fails, the cell has no scores."""
        self.host.note()
        self.gpu.stop()
        try:
            yield
        except Exception:
            self.scores, self.baselines = {}, {}
            raise
        finally:
            self.host.restart()

    def _tell_end(self, phase: str, seconds: float) -> None:
        if self._events is not None:
            peaks = self._peaks.get(phase, PhaseMemory()).model_dump()
            self._events.add(PhaseEnd(phase=phase, seconds=seconds, at=time.time(), **peaks))
            self._events.flush()

    def beat(self, progress: Progress) -> None:
        """A step or a batch is done."""
        self._step = (self._step or 0) + 1
        self._heartbeat.beat(progress)

    def _timing_starts(self) -> None:
        self.gpu.energy_from_here()  # not bound earlier: ``use`` exchanges the meter

    def fail(self, error: Exception) -> None:
        """The cell ends here; the failing step is the one after those done."""
        self._status = status_of(error)
        self._failure = failure_of(error, phase=self._phase, step=self._step)

    def record(self) -> CellRecord:
        """Everything known by now."""
        self.gpu.stop()
        cell = self._cell
        return CellRecord(
            **cell.identity(),
            status=self._status,
            error=self._failure,
            params=self.params,
            memory=self._memory(),
            time=self._time(),
            energy_j=self.gpu.energy_j if self.training.watch.step_s else None,
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
            notes=[text for ask in self.noted for text in ask()] if self.noted else None,
            environment=describe_environment(self._device) | self._not_measured(),
            started_at=self._started_at,
            finished_at=now(),
        )

    def _not_measured(self) -> dict[str, Any]:
        if self._device.type != "cuda":
            return {}
        timed = bool(self.training.watch.step_s)
        return {"not_measured": self.gpu.not_measured(at_least=self._reserved(), timed=timed)}

    def _reserved(self) -> int:
        return max((p.reserved_peak_bytes or 0 for p in self._peaks.values()), default=0)

    def _memory(self) -> Memory:
        return Memory(
            load=self._peaks.get("load", PhaseMemory()),
            train=self._peaks.get("train", PhaseMemory()),
            eval=self._peaks.get("eval", PhaseMemory()),
            nvml_process_peak_bytes=self.gpu.process_peak_bytes(at_least=self._reserved()),
            host_rss_peak_bytes=self.host.peak_bytes,
            foreign_bytes=self._foreign,
        )

    def _time(self) -> Time:
        watch = self.training.watch
        return Time(
            load_s=self._phase_s.get("load"),
            train_s=watch.total_s,
            eval_s=self._phase_s.get("eval"),
            step_median_s=watch.median_s,
            step_p95_s=watch.p95_s,
            samples_per_s=watch.samples_per_s,
            data_wait_s=watch.wait_s if watch.step_s else None,
            warmup_steps=watch.warmup,
        )

"""Step times, memory peaks and energy of a cell's run."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from bench import nvml as management
from bench.execution.contracts import Step
from bench.records.record import LossPoint, PhaseMemory, Time

_ON_LINUX = sys.platform == "linux"
_SAMPLE_EVERY_S = 0.1
_NO_NVML = "NVML does not answer, or does not know this GPU"
_NO_PROCESS = "NVML lists no process with our id; in a container it may use the host's (docker run --pid=host)"
_PER_BOARD = "NVML counts the energy of whole boards only; this is a MIG instance"
_NO_COUNTER = "NVML has no energy counter of this GPU"
_NOT_TIMED = "no training step was timed"


class TrainLog:
    """Losses and step times of a training, filled step by step so that a failure keeps everything before it.

    The first ``warmup`` steps (allocation, compilation, cold caches) are not timed; ``on_start`` runs when the timed
    steps begin. ``on_step`` is called after every step; it must take microseconds, as the next step's time has begun.
    """

    def __init__(
        self,
        *,
        warmup: int,
        on_start: Callable[[], None] = lambda: None,
        on_step: Callable[[Step], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.steps = 0
        self.curve: list[LossPoint] = []
        self.step_s: list[float] = []
        self._warmup, self._on_start, self._on_step, self._clock = warmup, on_start, on_step, clock
        self._since: list[float] = []
        self._untimed, self._samples = warmup, 0
        self._last, self._wait_s = 0.0, 0.0

    def start(self) -> None:
        """The training begins."""
        if self._untimed == 0:
            self._on_start()
        self._last = self._clock()

    def batch_ready(self) -> None:
        """The next step has its batch."""
        if self._untimed == 0:
            self._wait_s += self._clock() - self._last

    def step_done(self, samples: int) -> None:
        """A step has ended, also on the device."""
        now = self._clock()
        if self._untimed > 0:
            self._untimed -= 1
            if self._untimed == 0:
                self._on_start()
                now = self._clock()
        else:
            self.step_s.append(now - self._last)
            self._samples += samples
        self._last = now

    def add(self, loss: float, rate: float, *, every: int, last: bool) -> None:
        """Add the step's loss (finite), and every ``every`` steps and at the end a point of the curve."""
        self._since.append(loss)
        if self.steps % every == every - 1 or last:
            self.curve.append(LossPoint(step=self.steps, loss=sum(self._since) / len(self._since), lr=rate))
            self._since.clear()
        if self._on_step is not None:
            step_s = self.step_s[-1] if self.step_s else None
            self._on_step(Step(step=self.steps, loss=loss, lr=rate, step_s=step_s, at=time.time()))
        self.steps += 1

    def times(self) -> Time:
        """Times of the training; null if no step was timed."""
        if not self.step_s:
            return Time(warmup_steps=self._warmup)
        total = sum(self.step_s)
        return Time(
            train_s=total,
            step_median_s=statistics.median(self.step_s),
            step_p95_s=sorted(self.step_s)[-(-len(self.step_s) * 95 // 100) - 1],  # nearest rank
            samples_per_s=self._samples / total if total else None,
            data_wait_s=self._wait_s,
            warmup_steps=self._warmup,
        )


@contextmanager
def cuda_peaks(device: torch.device, peaks: dict[str, PhaseMemory], phase: str) -> Iterator[None]:
    """Put the phase's CUDA peaks into ``peaks``, also when the phase fails; nothing without CUDA."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()  # else blocks cached by the phase before would count as reserved in this one
    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        peaks[phase] = PhaseMemory(
            allocated_peak_bytes=torch.cuda.max_memory_allocated(device),
            reserved_peak_bytes=torch.cuda.max_memory_reserved(device),
        )


class HostMemory:
    """Peak resident set of this process since ``restart``, or since its start if it cannot be reset."""

    def __init__(self) -> None:
        self._peak = 0
        self.restart()

    def restart(self) -> None:
        """Forget the peak of the process."""
        if _ON_LINUX:
            with suppress(OSError):  # not permitted in some containers
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def note(self) -> None:
        """Keep the peak so far, before something that is not part of the cell's cost."""
        self._peak = max(self._peak, _resident_peak())

    @property
    def peak_bytes(self) -> int:
        """The highest peak so far."""
        self.note()
        return self._peak


def _resident_peak() -> int:
    # Not getrusage on Linux: its peak is inherited from the parent through fork and exec.
    if _ON_LINUX:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class GpuMeter:
    """Process memory and board energy by NVML; measures nothing without a handle."""

    def __init__(
        self, nvml: Any, handle: Any, *, pid: int, every_s: float = _SAMPLE_EVERY_S, is_instance: bool = False
    ) -> None:
        """``is_instance``: the handle is that of a MIG instance."""
        self._nvml, self._handle, self._is_instance = nvml, handle, is_instance
        self._pid, self._every_s = pid, every_s
        self._peak: int | None = None
        self._energy_mj: dict[Literal["start", "end"], int | None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_ended, name="nvml", daemon=True)

    def start(self) -> None:
        """Sample the process's memory in a thread, until ``stop``."""
        if self._handle is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the sampling and keep its values."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            self._nvml.nvmlShutdown()

    def bytes_in_use(self) -> int | None:
        """Memory in use on the device, without the driver's reserve; None if the driver does not report it apart.

        Before this process has a CUDA context, all of it belongs to other processes.
        """
        # The first version of the call counts reserved memory as in use: another quantity, so it is not asked.
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        memory = self._ask("nvmlDeviceGetMemoryInfo", version=version) if version is not None else None
        return None if memory is None else int(memory.used)

    def mark_energy(self, mark: Literal["start", "end"]) -> None:
        """Read the energy counter at the ``start`` or ``end`` of the timed training."""
        if not self._is_instance:  # the counter is of the board, with all its instances
            self._energy_mj[mark] = self._ask("nvmlDeviceGetTotalEnergyConsumption")

    @property
    def energy_j(self) -> float | None:
        """Joules of the whole board between the two marks."""
        start, end = self._energy_mj.get("start"), self._energy_mj.get("end")
        return None if start is None or end is None else (end - start) / 1000

    def process_peak_bytes(self, *, at_least: int) -> int | None:
        """Highest sample of this process's memory; None if it is below ``at_least``, the memory that torch reserved."""
        # Inside a container NVML may list processes by the host's ids: an entry with our id and less memory than
        # torch reserved is another process.
        return self._peak if self._peak is not None and self._peak >= at_least else None

    def not_measured(self, *, at_least: int, timed: bool) -> dict[str, str]:
        """Field of the record that is null -> the reason; ``timed``: whether any training step was timed."""
        reasons = {}
        if self.process_peak_bytes(at_least=at_least) is None:
            reasons["nvml_process_peak_bytes"] = _NO_NVML if self._handle is None else _NO_PROCESS
        if self.energy_j is None or not timed:
            reason = _NOT_TIMED if not timed else _PER_BOARD if self._is_instance else _NO_COUNTER
            reasons["energy_j"] = _NO_NVML if self._handle is None else reason
        return reasons

    def sample(self) -> None:
        """Sample the process's memory once."""
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses") or ():
            if process.pid == self._pid and process.usedGpuMemory is not None:
                self._peak = max(self._peak or 0, process.usedGpuMemory)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self._every_s):
            self.sample()

    def _ask(self, function: str, **options: Any) -> Any:
        """Answer of an NVML function for the device; None if NVML has none."""
        if self._handle is not None:
            with suppress(self._nvml.NVMLError):
                return getattr(self._nvml, function)(self._handle, **options)
        return None


def open_gpu_meter(device: torch.device) -> GpuMeter:
    """Meter of the first CUDA device; on a CPU or without a driver, one that measures nothing.

    Asks NVML alone, so it may be opened before this process has a CUDA context. Numbers in ``CUDA_VISIBLE_DEVICES``
    count as with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which workers have.
    """
    library = management.start() if device.type == "cuda" else None
    if library is not None:
        with suppress(library.NVMLError):
            for first in management.visible(library, os.environ.get("CUDA_VISIBLE_DEVICES")).values():
                return GpuMeter(library, first.handle, pid=os.getpid(), is_instance=first.is_instance)
    return GpuMeter(None, None, pid=os.getpid())

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
from bench.records.record import PhaseMemory

_ON_LINUX = sys.platform == "linux"
_SAMPLE_EVERY_S = 0.1
_NO_NVML = "NVML does not answer, or does not know this GPU"
_NO_PROCESS = "NVML lists no process with our id; in a container it may use the host's (docker run --pid=host)"
_PER_BOARD = "NVML counts the energy of whole boards only; this is a MIG instance"
_NO_COUNTER = "NVML has no energy counter of this GPU"
_NOT_TIMED = "no training step was timed"


class Stopwatch:
    """Step times of a training, without its first ``warmup`` steps (allocation, compilation, cold caches).

    The caller of ``step_done`` has waited for the device. ``on_start`` runs when the timed steps begin.
    """

    def __init__(
        self,
        *,
        warmup: int,
        on_start: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.warmup = warmup
        self.samples = 0
        self.step_s: list[float] = []
        self.wait_s = 0.0
        """Seconds of the timed steps spent waiting for batches."""
        self._on_start = on_start
        self._clock = clock
        self._untimed = warmup
        self._last = 0.0

    def start(self) -> None:
        """The training begins."""
        if self._untimed == 0:
            self._on_start()
        self._last = self._clock()

    def batch_ready(self) -> None:
        """The next step has its batch."""
        if self._untimed == 0:
            self.wait_s += self._clock() - self._last

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
            self.samples += samples
        self._last = now

    # Each is null if no step was timed.

    @property
    def last_s(self) -> float | None:
        """Time of the last step."""
        return self.step_s[-1] if self.step_s else None

    @property
    def total_s(self) -> float | None:
        """Sum of the step times."""
        return sum(self.step_s) if self.step_s else None

    @property
    def median_s(self) -> float | None:
        """Median of the step times."""
        return statistics.median(self.step_s) if self.step_s else None

    @property
    def p95_s(self) -> float | None:
        """95th percentile of the step times, by nearest rank."""
        return sorted(self.step_s)[max(0, -(-len(self.step_s) * 95 // 100) - 1)] if self.step_s else None

    @property
    def samples_per_s(self) -> float | None:
        """Training samples per second."""
        return self.samples / self.total_s if self.total_s else None


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
    """Peak resident set of this process since ``restart``; without Linux or the right to, since its start."""

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
        self._nvml = nvml
        self._handle = handle
        self._is_instance = is_instance
        self._pid = pid
        self._every_s = every_s
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
        """Memory in use on the device without what the driver reserves; null if the driver does not tell them apart.

        Before this process has a CUDA context, that is the memory of others.
        """
        if self._handle is not None:
            with suppress(self._nvml.NVMLError):
                version = self._nvml.nvmlMemory_v2  # the first version counts reserved memory as in use
                return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=version).used)
        return None

    def mark_energy(self, mark: Literal["start", "end"]) -> None:
        """Read the energy counter at the ``start`` or ``end`` of the timed training."""
        self._energy_mj[mark] = None
        if self._handle is not None and not self._is_instance:
            with suppress(self._nvml.NVMLError):
                self._energy_mj[mark] = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    @property
    def energy_j(self) -> float | None:
        """Joules of the whole board between the two marks."""
        start, end = self._energy_mj.get("start"), self._energy_mj.get("end")
        return None if start is None or end is None else (end - start) / 1000

    def process_peak_bytes(self, *, at_least: int) -> int | None:
        """Highest sample of this process's memory; null if it is below ``at_least``, what torch itself reserved."""
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
        if self._handle is None:
            return
        with suppress(self._nvml.NVMLError):
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if process.pid == self._pid and process.usedGpuMemory is not None:
                    self._peak = max(self._peak or 0, process.usedGpuMemory)

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self._every_s):
            self.sample()


def open_gpu_meter(device: torch.device) -> GpuMeter:
    """Meter of the first CUDA device; on a CPU or without a driver, one that measures nothing.

    Asks NVML alone, so it may be opened before this process has a CUDA context. Numbers in ``CUDA_VISIBLE_DEVICES``
    count as with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which workers have.
    """
    library = management.start() if device.type == "cuda" else None
    if library is not None:
        with suppress(library.NVMLError):
            devices = management.visible(library, os.environ.get("CUDA_VISIBLE_DEVICES"))
            for first in devices.values():
                return GpuMeter(library, first.handle, pid=os.getpid(), is_instance=first.is_instance)
    return GpuMeter(None, None, pid=os.getpid())

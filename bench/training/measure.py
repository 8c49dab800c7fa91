"""Time, memory and size of a cell's run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.records.record import PhaseMemory

_ON_LINUX = sys.platform == "linux"


class Stopwatch:
    """Step times of a training, without its first ``warmup`` steps (allocation, compilation, cold caches).

    Whoever calls ``step_done`` has waited for the device. ``on_start`` runs when the timed steps begin.
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
        """The next step has its batch: what passed since the last step was waiting for it."""
        if self._untimed == 0:
            self.wait_s += self._clock() - self._last

    def step_done(self, samples: int) -> None:
        """A step is through, on the device as well."""
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

    @property
    def last_s(self) -> float | None:
        """The last step's time; null while warming up."""
        return self.step_s[-1] if self.step_s else None

    @property
    def total_s(self) -> float | None:
        """Seconds of all timed steps; null if there were none."""
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
        """Training samples per second over the timed steps."""
        return self.samples / self.total_s if self.total_s else None


@contextmanager
def cuda_peaks(device: torch.device, peaks: dict[str, PhaseMemory], phase: str) -> Iterator[None]:
    """Put the phase's CUDA peaks into ``peaks``, also when the phase fails; nulls without CUDA.

    Cached blocks of the phase before are returned first, so that the reserved peak is the phase's own.
    """
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        peaks[phase] = PhaseMemory(
            allocated_peak_bytes=torch.cuda.max_memory_allocated(device),
            reserved_peak_bytes=torch.cuda.max_memory_reserved(device),
        )


class HostMemory:
    """Peak resident set of this process since ``restart``, where the system can restart its own count."""

    def __init__(self) -> None:
        self._peak = 0
        self.restart()

    def restart(self) -> None:
        """Forget peaks from here on (Linux; elsewhere the peak is that of the process's life)."""
        if _ON_LINUX:
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                return  # not permitted in some containers

    def note(self) -> None:
        """Keep the present peak, before something that is not part of the cell's own cost."""
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


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write a safetensors file and return its size in bytes."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    return path.stat().st_size

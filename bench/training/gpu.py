"""What only NVML knows: the process's whole GPU memory, what others hold of it, and the board's energy counter. Null,
and the reason, where it cannot say.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

import torch

from bench import nvml as management

_SAMPLE_EVERY_S = 0.1
_NO_NVML = "NVML does not answer, or does not know this GPU"
_NO_PROCESS = "NVML lists no process with our id; in a container it may use the host's (docker run --pid=host)"
_PER_BOARD = "NVML counts the energy of whole boards only; this is a MIG instance"
_NO_COUNTER = "NVML has no energy counter of this GPU"
_NOT_TIMED = "no training step was timed"


class GpuMeter:
    """Samples NVML in a thread between ``start`` and ``stop``; does nothing without a GPU or a driver."""

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
        self._energy_from: int | None = None
        self._energy_to: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_ended, name="nvml", daemon=True)

    def start(self) -> None:
        """Begin to sample the process's memory."""
        if self._handle is not None:
            self._thread.start()

    def stop(self) -> None:
        """End the sampling; the values taken stay."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            self._nvml.nvmlShutdown()

    def bytes_in_use(self) -> int | None:
        """Of the whole device, what the driver keeps for itself left out; null where the driver does not tell them
        apart. Of others alone if our process has no CUDA context yet.
        """
        if self._handle is None:
            return None
        with suppress(self._nvml.NVMLError):
            version = self._nvml.nvmlMemory_v2
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=version).used)
        return None

    def energy_from_here(self) -> None:
        """The timed training begins."""
        self._energy_from = self._energy_counter()

    def energy_to_here(self) -> None:
        """The timed training ends."""
        self._energy_to = self._energy_counter()

    @property
    def energy_j(self) -> float | None:
        """Joules of the whole board between the two marks."""
        if self._energy_from is None or self._energy_to is None:
            return None
        return (self._energy_to - self._energy_from) / 1000

    def process_peak_bytes(self, *, at_least: int) -> int | None:
        """Highest sample of this process's memory.

        Inside a container NVML may list processes by the host's ids. An entry that has our id but less memory than
        torch itself reserved (``at_least``) is somebody else's: null then, never the whole device's use.
        """
        return self._peak if self._peak is not None and self._peak >= at_least else None

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(self._every_s):
            self.sample()

    def not_measured(self, *, at_least: int, timed: bool) -> dict[str, str]:
        """Field of the record that is null -> the reason; ``timed``: whether there were steps to take energy of."""
        found = {}
        if self.process_peak_bytes(at_least=at_least) is None:
            found["nvml_process_peak_bytes"] = _NO_NVML if self._handle is None else _NO_PROCESS
        if self.energy_j is None or not timed:
            reason = _NOT_TIMED if not timed else _PER_BOARD if self._is_instance else _NO_COUNTER
            found["energy_j"] = _NO_NVML if self._handle is None else reason
        return found

    def sample(self) -> None:
        """Look once."""
        if self._handle is None:
            return
        with suppress(self._nvml.NVMLError):
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if process.pid == self._pid and process.usedGpuMemory is not None:
                    self._peak = max(self._peak or 0, process.usedGpuMemory)

    def _energy_counter(self) -> int | None:
        if self._handle is None or self._is_instance:
            return None
        with suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None


def open_gpu_meter(device: torch.device) -> GpuMeter:
    """The meter of the first CUDA device; on a CPU, or without a driver, one that measures nothing.

    Asks NVML alone, so that it can be opened before this process has a CUDA context. Numbers in
    ``CUDA_VISIBLE_DEVICES`` are taken as with ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which workers have.
    """
    library = management.start() if device.type == "cuda" else None
    if library is not None:
        with suppress(library.NVMLError):
            devices = management.visible(library, os.environ.get("CUDA_VISIBLE_DEVICES"))
            for first in devices.values():
                return GpuMeter(library, first.handle, pid=os.getpid(), is_instance=first.is_instance)
    return GpuMeter(None, None, pid=os.getpid())

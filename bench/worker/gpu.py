"""What only NVML knows: the process's whole GPU memory, and the board's energy counter. Null where it cannot say."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

import torch

_SAMPLE_EVERY_S = 0.1


class GpuMeter:
    """Samples NVML in a thread between ``start`` and ``stop``; does nothing without a GPU or a driver."""

    def __init__(self, nvml: Any, handle: Any, *, pid: int, every_s: float = _SAMPLE_EVERY_S) -> None:
        self._nvml = nvml
        self._handle = handle
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

    def sample(self) -> None:
        """Look once."""
        with suppress(self._nvml.NVMLError):
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if process.pid == self._pid and process.usedGpuMemory is not None:
                    self._peak = max(self._peak or 0, process.usedGpuMemory)

    def _energy_counter(self) -> int | None:
        if self._handle is None:
            return None
        with suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None


def open_gpu_meter(device: torch.device) -> GpuMeter:
    """The meter of a CUDA device; on a CPU, or without a driver, one that measures nothing."""
    if device.type == "cuda":
        import pynvml

        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            # By its UUID: NVML does not follow CUDA_VISIBLE_DEVICES.
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            return GpuMeter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid), pid=os.getpid())
    return GpuMeter(None, None, pid=os.getpid())

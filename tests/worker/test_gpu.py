"""NVML through a double that fails and lists processes as drivers do; and the real one where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.spec.cell import Cell
from bench.training.measure import GpuMeter, open_gpu_meter
from bench.worker import recorder


class FakeError(Exception):
    """As ``pynvml.NVMLError``."""


class FakeNvml:
    """One board with some processes and an energy counter."""

    NVMLError = FakeError
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(
        self, processes: list[tuple[int, int | None]], millijoules: list[int] | None = None, used: int | None = None
    ) -> None:
        self.processes = processes
        self.millijoules = iter(millijoules) if millijoules is not None else None
        self.used = used

    def nvmlDeviceGetMemoryInfo(self, _handle: Any, version: int) -> SimpleNamespace:  # noqa: N802
        if self.used is None:
            raise FakeError("Function Not Found")
        assert version == self.nvmlMemory_v2, "the first version counts what the driver keeps as in use"
        return SimpleNamespace(used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: Any) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes]

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: Any) -> int:  # noqa: N802
        if self.millijoules is None:
            raise FakeError("Not Supported")
        return next(self.millijoules)

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Nothing to shut down."""


def meter(nvml: FakeNvml, every_s: float = 60.0) -> GpuMeter:
    return GpuMeter(nvml, "board 0", pid=42, every_s=every_s)


def test_the_peak_is_of_our_process_alone() -> None:
    nvml = FakeNvml([(7, 10**10), (42, 300)])
    gpu = meter(nvml)
    for used in (300, 900, 500):
        nvml.processes = [(7, 10**10), (42, used)]
        gpu.sample()
    assert gpu.process_peak_bytes(at_least=800) == 900


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param([(31337, 900)], id="ids of the host"),
        pytest.param([(42, 100)], id="a stranger who has our id there"),
        pytest.param([(42, None)], id="memory not available"),
        pytest.param([], id="nobody"),
    ],
)
def test_without_our_process_there_is_no_peak(processes: list[tuple[int, int | None]]) -> None:
    gpu = meter(FakeNvml(processes))
    gpu.sample()
    assert gpu.process_peak_bytes(at_least=800) is None


def test_the_thread_samples_until_stopped() -> None:
    gpu = meter(FakeNvml([(42, 900)]), every_s=0.001)
    gpu.start()
    while gpu.process_peak_bytes(at_least=0) is None:
        pass
    gpu.stop()


def test_energy_is_the_difference_of_the_counter() -> None:
    gpu = meter(FakeNvml([], millijoules=[5_000, 12_500]))
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    assert gpu.energy_j == 7.5


def test_energy_is_null_where_the_board_has_no_counter_or_nothing_was_timed() -> None:
    unsupported = meter(FakeNvml([]))
    unsupported.mark_energy("start")
    unsupported.mark_energy("end")
    assert unsupported.energy_j is None
    only_ended = meter(FakeNvml([], millijoules=[5_000]))
    only_ended.mark_energy("end")
    assert only_ended.energy_j is None


def test_a_cpu_has_nothing_to_measure() -> None:
    gpu = open_gpu_meter(torch.device("cpu"))
    gpu.start()
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    gpu.stop()
    assert (gpu.energy_j, gpu.process_peak_bytes(at_least=0)) == (None, None)


def test_a_missing_driver_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    gpu = open_gpu_meter(torch.device("cuda"))
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    assert gpu.energy_j is None


def test_what_others_hold_is_told_where_the_driver_tells_it() -> None:
    assert meter(FakeNvml([], used=3 << 30)).bytes_in_use() == 3 << 30
    assert meter(FakeNvml([])).bytes_in_use() is None


@pytest.mark.parametrize(("ours", "told"), [(False, 5 << 30), (True, None)])
def test_memory_of_our_own_process_is_not_told_as_that_of_others(
    make_cell: Callable[..., Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool, told: int | None
) -> None:
    """An earlier cell in this process has a CUDA context and cached memory."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: ours)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(recorder, "describe_environment", lambda _: {})
    monkeypatch.setattr(recorder, "open_gpu_meter", lambda _: meter(FakeNvml([], used=5 << 30)))
    running = recorder.Recorder(make_cell(), tmp_path)
    running.use(torch.device("cuda"))
    assert running.record().memory.foreign_bytes == told


def test_a_missing_driver_is_sampled_without_a_fault() -> None:
    gpu = open_gpu_meter(torch.device("cpu"))
    gpu.sample()
    assert gpu.bytes_in_use() is None
    reasons = gpu.not_measured(at_least=0, timed=True)
    assert reasons.keys() == {"nvml_process_peak_bytes", "energy_j"}
    assert all("NVML does not answer" in reason for reason in reasons.values())


def test_nothing_is_missing_where_all_is_measured() -> None:
    gpu = meter(FakeNvml([(42, 900)], millijoules=[0, 1]))
    gpu.mark_energy("start")
    gpu.sample()
    gpu.mark_energy("end")
    assert gpu.not_measured(at_least=800, timed=True) == {}
    assert gpu.not_measured(at_least=1000, timed=True)["nvml_process_peak_bytes"].startswith("NVML lists no process")
    assert gpu.not_measured(at_least=800, timed=False) == {"energy_j": "no training step was timed"}


class MigNvml(FakeNvml):
    """A board in MIG mode with the second of seven places taken, and its neighbours' energy in its counter."""

    def nvmlInit(self) -> None:  # noqa: N802
        """Nothing to start."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"board {index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return "GPU-aaaa" if handle == "board 0" else "MIG-bbbb"

    def nvmlDeviceGetMigMode(self, _handle: str) -> list[int]:  # noqa: N802
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, _handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _handle: str, index: int) -> str:  # noqa: N802
        if index != 1:
            raise FakeError("Not Found")
        return "instance 1"


@pytest.mark.parametrize("visible", [None, "MIG-bbbb", "0", "GPU-aaaa"])
def test_a_mig_instance_is_metered_as_itself(visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = MigNvml([], millijoules=[0, 10**6], used=5 << 20)
    monkeypatch.setattr("bench.nvml.start", lambda: nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = open_gpu_meter(torch.device("cuda"))
    assert gpu._handle == "instance 1"
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    assert gpu.energy_j is None, "the counter is of the board, with all its instances"
    assert "MIG instance" in gpu.not_measured(at_least=0, timed=True)["energy_j"]
    assert gpu.bytes_in_use() == 5 << 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_real_board_answers() -> None:
    gpu = open_gpu_meter(torch.device("cuda"))
    block = torch.zeros(2**20, device="cuda")
    gpu.mark_energy("start")
    gpu.sample()
    gpu.mark_energy("end")
    peak = gpu.process_peak_bytes(at_least=block.nbytes)
    assert peak is None or peak >= block.nbytes
    assert gpu.energy_j is None or gpu.energy_j >= 0

"""Step times with a fake clock; NVML through a double that fails and lists processes as drivers do; memory for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.nvml import Device
from bench.records.record import PhaseMemory, Time
from bench.training.measure import GpuMeter, HostMemory, TrainLog, cuda_peaks, open_gpu_meter


def log(warmup: int, times: list[float], events: list[str] | None = None) -> TrainLog:
    clock: Iterator[float] = iter(times)
    return TrainLog(warmup=warmup, on_start=lambda: (events or []).append("start"), clock=lambda: next(clock))


def step(log: TrainLog) -> None:
    log.batch_ready()
    log.step_done(8)


def test_warmup_steps_are_not_timed_and_waiting_is_part_of_a_step() -> None:
    events = ["begin"]
    training = log(1, [0.0, 7.0, 7.5, 8.5, 10.0, 11.0, 14.0], events)
    training.start()
    step(training)  # the warm-up, up to 7.5
    assert events == ["begin", "start"]
    step(training)
    step(training)
    assert training.step_s == [2.5, 4.0]
    assert training.times() == Time(
        train_s=6.5, step_median_s=3.25, step_p95_s=4.0, samples_per_s=16 / 6.5, data_wait_s=2.0, warmup_steps=1
    )


def test_nothing_timed_is_null_not_zero() -> None:
    training = log(3, [0.0, 1.0])
    training.start()
    step(training)
    assert training.times() == Time(warmup_steps=3)


def test_p95_is_the_nearest_rank() -> None:
    training = log(0, [])
    training.step_s = [float(n) for n in range(1, 101)]
    assert training.times().step_p95_s == 95.0


def test_host_memory_has_a_peak_that_can_be_forgotten() -> None:
    memory = HostMemory()
    before = memory.peak_bytes
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    assert memory.peak_bytes - before > 150 * 2**20
    if Path("/proc/self/clear_refs").exists():
        assert HostMemory().peak_bytes < before + 100 * 2**20


def test_cuda_peaks_are_reset_first_and_kept_on_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 7)
    peaks: dict[str, PhaseMemory] = {}
    with pytest.raises(MemoryError), cuda_peaks(torch.device("cuda"), peaks, "train"):
        raise MemoryError
    with cuda_peaks(torch.device("cpu"), peaks, "eval"):
        pass
    assert calls == ["empty", "reset"]
    assert peaks == {"train": PhaseMemory(allocated_peak_bytes=5, reserved_peak_bytes=7)}


class FakeError(Exception):
    """As ``pynvml.NVMLError``."""


def fake_nvml(
    processes: list[tuple[int, int | None]] | None = None,
    millijoules: list[int] | None = None,
    used: int | None = None,
) -> Any:
    """``pynvml`` with one board that has some processes and an energy counter."""
    counter = iter(millijoules or ())

    def memory(_handle: Any, version: int) -> Any:
        assert version == 2, "the first version counts what the driver keeps as in use"
        return answer(None if used is None else SimpleNamespace(used=used))

    def answer(value: Any) -> Any:
        if value is None:
            raise FakeError("Not Supported")
        return value

    return SimpleNamespace(
        NVMLError=FakeError,
        nvmlMemory_v2=2,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetComputeRunningProcesses=lambda _: [
            SimpleNamespace(pid=pid, usedGpuMemory=used_by) for pid, used_by in processes or ()
        ],
        nvmlDeviceGetTotalEnergyConsumption=lambda _: answer(next(counter, None)),
        nvmlShutdown=lambda: None,
    )


def meter(nvml: Any, every_s: float = 60.0) -> GpuMeter:
    return GpuMeter(nvml, "board 0", pid=42, every_s=every_s)


def test_the_peak_is_of_our_process_alone() -> None:
    processes: list[tuple[int, int | None]] = [(7, 10**10)]
    gpu = meter(fake_nvml(processes))
    for used in (300, 900, 500):
        processes[1:] = [(42, used)]
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
    gpu = meter(fake_nvml(processes))
    gpu.sample()
    assert gpu.process_peak_bytes(at_least=800) is None


def test_the_thread_samples_until_stopped() -> None:
    gpu = meter(fake_nvml([(42, 900)]), every_s=0.001)
    gpu.start()
    while gpu.process_peak_bytes(at_least=0) is None:
        pass
    gpu.stop()


@pytest.mark.parametrize(("millijoules", "joules"), [([5_000, 12_500], 7.5), (None, None)])
def test_energy_is_the_difference_of_the_counter(millijoules: list[int] | None, joules: float | None) -> None:
    gpu = meter(fake_nvml(millijoules=millijoules))
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    assert gpu.energy_j == joules


def test_energy_is_null_where_nothing_was_timed() -> None:
    gpu = meter(fake_nvml(millijoules=[5_000]))
    gpu.mark_energy("end")
    assert gpu.energy_j is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_gpu_or_driver_nothing_is_measured(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    gpu = open_gpu_meter(torch.device(device))
    gpu.start()
    gpu.mark_energy("start")
    gpu.sample()
    gpu.mark_energy("end")
    gpu.stop()
    assert (gpu.energy_j, gpu.process_peak_bytes(at_least=0), gpu.bytes_in_use()) == (None, None, None)
    reasons = gpu.not_measured(at_least=0, timed=True)
    assert reasons.keys() == {"nvml_process_peak_bytes", "energy_j"}
    assert all("NVML does not answer" in reason for reason in reasons.values())


@pytest.mark.parametrize("used", [3 << 30, None])
def test_memory_of_others_is_known_where_the_driver_knows_it(used: int | None) -> None:
    assert meter(fake_nvml(used=used)).bytes_in_use() == used


def test_nothing_is_missing_where_all_is_measured() -> None:
    gpu = meter(fake_nvml([(42, 900)], millijoules=[0, 1]))
    gpu.mark_energy("start")
    gpu.sample()
    gpu.mark_energy("end")
    assert gpu.not_measured(at_least=800, timed=True) == {}
    assert gpu.not_measured(at_least=1000, timed=True)["nvml_process_peak_bytes"].startswith("NVML lists no process")
    assert gpu.not_measured(at_least=800, timed=False) == {"energy_j": "no training step was timed"}


def test_a_mig_instance_is_metered_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of energy is of the board, with all its instances."""
    instance = Device(uuid="MIG-bbbb", handle="instance 1")
    monkeypatch.setattr("bench.nvml.start", lambda: fake_nvml(millijoules=[0, 10**6], used=5 << 20))
    monkeypatch.setattr("bench.nvml.visible", lambda *_: {"0": instance})
    gpu = open_gpu_meter(torch.device("cuda"))
    assert gpu._handle == "instance 1"
    gpu.mark_energy("start")
    gpu.mark_energy("end")
    assert gpu.energy_j is None
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

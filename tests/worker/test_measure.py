"""Step times with a clock of our own, memory and sizes for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.records.record import PhaseMemory
from bench.training.measure import HostMemory, Stopwatch, cuda_peaks
from bench.training.params import write_tensors


def stopwatch(warmup: int, times: list[float], events: list[str] | None = None) -> Stopwatch:
    clock: Iterator[float] = iter(times)
    noted = events if events is not None else []
    return Stopwatch(warmup=warmup, on_start=lambda: noted.append("start"), clock=lambda: next(clock))


def test_warmup_steps_are_not_timed_and_waiting_is_part_of_a_step() -> None:
    events: list[str] = []
    watch = stopwatch(1, [0.0, 7.0, 7.5, 8.5, 10.0, 11.0, 14.0], events)
    watch.start()
    watch.batch_ready()
    watch.step_done(8)  # the warm-up, up to 7.5
    assert events == ["start"]
    for _ in range(2):
        watch.batch_ready()
        watch.step_done(8)
    assert watch.step_s == [2.5, 4.0]
    assert watch.wait_s == 2.0
    assert (watch.total_s, watch.median_s, watch.p95_s) == (6.5, 3.25, 4.0)
    assert watch.samples_per_s == pytest.approx(16 / 6.5)


def test_nothing_timed_is_null_not_zero() -> None:
    watch = stopwatch(3, [0.0, 1.0])
    watch.start()
    watch.batch_ready()
    watch.step_done(8)
    assert (watch.total_s, watch.median_s, watch.p95_s, watch.samples_per_s) == (None, None, None, None)


def test_p95_is_the_nearest_rank() -> None:
    watch = stopwatch(0, [])
    watch.step_s = [float(n) for n in range(1, 101)]
    assert watch.p95_s == 95.0


def test_host_memory_sees_a_peak_and_can_forget_one() -> None:
    memory = HostMemory()
    before = memory.peak_bytes
    block = np.ones(200 * 2**20, dtype=np.uint8)
    del block
    assert memory.peak_bytes - before > 150 * 2**20
    if Path("/proc/self/clear_refs").exists():
        assert HostMemory().peak_bytes < before + 100 * 2**20


def test_written_tensors_have_the_size_of_the_file(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    file = tmp_path / "adapter" / "adapter.safetensors"
    size = write_tensors(file, {"jtm.A": whole, "dec.B": whole.T})
    assert size == file.stat().st_size > 2 * 48
    assert torch.equal(load_file(file)["dec.B"], whole.T)


def test_cuda_peaks_are_reset_first_and_kept_on_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 5)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 7)
    peaks: dict[str, PhaseMemory] = {}
    with pytest.raises(MemoryError), cuda_peaks(torch.device("cuda"), peaks, "train"):
        raise MemoryError
    assert calls == ["empty", "reset"]
    assert peaks["train"] == PhaseMemory(allocated_peak_bytes=5, reserved_peak_bytes=7)


def test_there_are_no_peaks_without_cuda() -> None:
    peaks: dict[str, PhaseMemory] = {}
    with cuda_peaks(torch.device("cpu"), peaks, "train"):
        pass
    assert peaks == {}

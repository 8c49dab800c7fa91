"""Progress and events: seldom written, never a reason to fail; memory of this process is not that of others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.execution.contracts import PhaseEnd, Progress, Step
from bench.spec.cell import Cell
from bench.worker import recorder
from bench.worker.recorder import EventLog, Heartbeat
from tests.training.test_measure import fake_nvml, meter


def step(number: int) -> Step:
    return Step(step=number, loss=0.5, lr=1e-3, step_s=None, at=7.0)


def test_heartbeats_are_throttled_but_phases_and_ends_are_not(tmp_path: Path) -> None:
    now, file = [0.0], tmp_path / "progress.json"
    heart = Heartbeat(file, interval_s=0.5, clock=lambda: now[0])

    def after(progress: Progress) -> tuple[str, int]:
        heart.beat(progress)
        read = json.loads(file.read_text())
        return read["phase"], read["done"]

    assert after(Progress(phase="train", done=1, total=9)) == ("train", 1)
    assert after(Progress(phase="train", done=2, total=9)) == ("train", 1)
    now[0] = 0.6
    assert after(Progress(phase="train", done=3, total=9, note="loss 0.5")) == ("train", 3)
    assert after(Progress(phase="train", done=9, total=9)) == ("train", 9)
    assert after(Progress(phase="eval")) == ("eval", 0)


def test_events_are_collected_and_written_once_an_interval(tmp_path: Path) -> None:
    now, path = [0.0], tmp_path / "events.jsonl"
    log = EventLog(path, interval_s=1.0, clock=lambda: now[0])
    log.add(step(0))
    now[0] = 0.9
    log.add(step(1))
    assert not path.exists()
    now[0] = 1.0
    log.add(step(2))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    log.add(PhaseEnd(phase="train", seconds=3.5, allocated_peak_bytes=None, reserved_peak_bytes=None, at=8.0))
    log.flush()
    last = json.loads(path.read_text().splitlines()[-1])
    peaks = {"allocated_peak_bytes": None, "reserved_peak_bytes": None}
    assert last == {"phase": "train", "seconds": 3.5, **peaks, "at": 8}


def test_a_disk_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    Heartbeat(tmp_path / "missing" / "progress.json").beat(Progress(phase="train", done=1, total=9))
    log = EventLog(tmp_path / "missing" / "events.jsonl", interval_s=0)
    log.add(step(0))
    log.flush()


@pytest.mark.benchmark
def test_an_event_costs_microseconds(tmp_path: Path) -> None:
    """Of the next step's time; writing included. About 15 were measured, on a core that others used, too."""
    log, steps = EventLog(tmp_path / "events.jsonl"), 5000
    started = time.process_time()
    for number in range(steps):
        log.add(step(number))
    log.flush()
    assert (time.process_time() - started) / steps < 200e-6


@pytest.mark.parametrize(("has_context", "foreign"), [(False, 5 << 30), (True, None)])
def test_memory_of_this_process_is_not_taken_for_that_of_others(
    make_cell: Callable[..., Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_context: bool,
    foreign: int | None,
) -> None:
    """An earlier cell in this process has a CUDA context and cached memory."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: has_context)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(recorder, "describe_environment", lambda _: {})
    monkeypatch.setattr(recorder, "open_gpu_meter", lambda _: meter(fake_nvml(used=5 << 30)))
    running = recorder.Recorder(make_cell(), tmp_path)
    running.use(torch.device("cuda"))
    assert running.record().memory.foreign_bytes == foreign

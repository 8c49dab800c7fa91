"""The lines that trackers follow: all of them, seldom written, and never a reason to fail."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench.execution.contracts import PhaseEnd, Step
from bench.worker.recorder import EventLog


def step(number: int) -> Step:
    return Step(step=number, loss=0.5, lr=1e-3, step_s=None, at=7.0)


def test_lines_are_collected_and_written_once_an_interval(tmp_path: Path) -> None:
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
    assert last == {
        "phase": "train",
        "seconds": 3.5,
        "allocated_peak_bytes": None,
        "reserved_peak_bytes": None,
        "at": 8,
    }


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "gone" / "events.jsonl", interval_s=0)
    log.add(step(0))
    log.flush()


@pytest.mark.benchmark
def test_a_step_costs_microseconds(tmp_path: Path) -> None:
    """Of the next step's time; writing included. About 15 were measured, on a core that others used, too."""
    log, steps = EventLog(tmp_path / "events.jsonl"), 5000
    started = time.process_time()
    for number in range(steps):
        log.add(step(number))
    log.flush()
    assert (time.process_time() - started) / steps < 200e-6

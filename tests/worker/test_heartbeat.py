"""The heartbeat, with a clock of our own."""

from __future__ import annotations

import json
from pathlib import Path

from bench.execution.contracts import Progress
from bench.worker.recorder import Heartbeat


def test_heartbeats_are_throttled_but_phases_and_ends_are_not(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "progress.json"
    heart = Heartbeat(file, interval_s=0.5, clock=lambda: now)

    def after(progress: Progress) -> tuple[str, int]:
        heart.beat(progress)
        read = json.loads(file.read_text())
        return read["phase"], read["done"]

    assert after(Progress(phase="train", done=1, total=9)) == ("train", 1)
    assert after(Progress(phase="train", done=2, total=9)) == ("train", 1)
    now = 0.6
    assert after(Progress(phase="train", done=3, total=9, note="loss 0.5")) == ("train", 3)
    assert after(Progress(phase="train", done=9, total=9)) == ("train", 9)
    assert after(Progress(phase="eval")) == ("eval", 0)


def test_a_full_disk_does_not_end_the_training(tmp_path: Path) -> None:
    Heartbeat(tmp_path / "missing" / "progress.json").beat(Progress(phase="train", done=1, total=9))

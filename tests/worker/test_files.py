"""Atomic files and the heartbeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.protocols import Progress
from bench.worker.files import write_atomically
from bench.worker.heartbeat import Heartbeat


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "result.json"
    write_atomically(target, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("result.json", b"old")]


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

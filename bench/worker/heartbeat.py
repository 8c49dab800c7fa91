"""What the parent sees of a running worker: ``progress.json``, whose age is the sign of life."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from bench.execution.contracts import Progress


class Heartbeat:
    """Writes progress at most every ``interval_s`` seconds; a change of phase is written at once."""

    def __init__(self, path: Path, *, interval_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._interval_s = interval_s
        self._clock = clock
        self._written_at: float | None = None
        self._phase: str | None = None

    def beat(self, progress: Progress) -> None:
        """Note that the worker is alive and how far it is."""
        now = self._clock()
        ended = progress.total > 0 and progress.done == progress.total
        recent = self._written_at is not None and now - self._written_at < self._interval_s
        if progress.phase == self._phase and recent and not ended:
            return
        self._phase, self._written_at = progress.phase, now
        with suppress(OSError):  # a disk that is full for a moment must not end a training
            beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            beside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            beside.replace(self._path)

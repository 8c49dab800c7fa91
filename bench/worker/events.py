"""What trackers are to know of a running cell, as lines of a file that the runner reads: ``EVENTS_FILE``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.execution.contracts import PhaseEnd, Step


class EventLog:
    """Collects lines and appends them to the file at most every ``interval_s`` seconds.

    No tracker's own code runs in a worker: its memory, its threads and its network would count as the cell's.
    """

    def __init__(self, path: Path, *, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._interval_s = interval_s
        self._clock = clock
        self._lines: list[str] = []
        self._written_at = clock()

    def add(self, event: Step | PhaseEnd) -> None:
        """Keep it, and write what is kept if it is time."""
        fields = {name: getattr(event, name) for name in event.__slots__}  # asdict copies: twice the time
        self._lines.append(json.dumps(fields))
        if self._clock() - self._written_at >= self._interval_s:
            self.flush()

    def flush(self) -> None:
        """Write what is kept; if that fails it is lost, for a full disk must not end a training."""
        text = "".join(line + "\n" for line in self._lines)
        self._lines.clear()
        self._written_at = self._clock()
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(text)

"""Forwards a run to its trackers without any effect on its cells.

A worker only appends small lines to its job folder (``EVENTS_FILE``); each tracker follows these files from a thread of
the runner. A slow server, a heavy import or a failure costs the cells nothing, and cluster nodes need no network.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path

from bench import registry
from bench.execution.contracts import EVENTS_FILE, PhaseEnd, Step, Tracker, TrackerPlugin
from bench.execution.jobs import Job
from bench.plugins.settings import TrackerSettings
from bench.records.record import CellRecord

POLL_S = 1.0
WAIT_S, WAIT_INTERRUPTED_S, SILENT_S = 60.0, 1.0, 2.0
"""Seconds that the end of a run, or its interruption, waits for trackers; seconds until a message about it."""
Say = Callable[[str], None]


@contextmanager
def tracking(trackers: Sequence[TrackerSettings], *, results: Path, say: Say) -> Iterator[Tracking]:
    """The trackers of a run, which keep their files below ``results``, the results folder of the spec.

    Raises SpecError, before anything runs, if a package that one of them needs is not installed.
    """
    running = Tracking([_Follower(settings, results / settings.name, say) for settings in trackers], say)
    try:
        yield running
    except BaseException:
        running.close(wait_s=WAIT_INTERRUPTED_S)
        raise
    running.close(wait_s=WAIT_S)


class Tracking:
    """All trackers of a run. Its calls return at once, whatever the trackers do."""

    def __init__(self, followers: Sequence[_Follower], say: Say) -> None:
        self._followers = followers
        self._say = say

    def started(self, job: Job) -> None:
        """The job is prepared and its cell is about to run."""
        for follower in self._followers:
            follower.submit(partial(follower.start, job))

    def ended(self, job: Job, record: CellRecord) -> None:
        """The cell has its record."""
        for follower in self._followers:
            follower.submit(partial(follower.end, job, record))

    def close(self, *, wait_s: float) -> None:
        """Let the trackers finish within ``wait_s`` seconds."""
        deadline = time.monotonic() + wait_s
        for follower in self._followers:
            follower.submit(None)
        for follower in self._followers:
            if follower.is_alive(min(SILENT_S, wait_s)):
                self._say(f"waiting for the tracker {follower.name}, at most {wait_s:.0f} s (Ctrl-C: do not wait)")
            if follower.is_alive(deadline - time.monotonic()):
                self._say(f"warning: the tracker {follower.name} did not take everything in time; the records have it")


class _Follower:
    """A tracker in a thread, which starts with the first call."""

    def __init__(self, settings: TrackerSettings, folder: Path, say: Say) -> None:
        self.name = settings.name
        self._plugin: TrackerPlugin = registry.load("trackers", settings.name)
        self._plugin.check(settings)
        self._settings = settings
        self._folder = folder
        self._say = say
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._tracker: Tracker
        self._running: dict[str, Job] = {}
        self._offsets: dict[str, int] = {}
        """Bytes of each cell's events that were forwarded."""

    # Called from the runner's thread:

    def submit(self, call: Callable[[], None] | None) -> None:
        """Queue a call for the tracker's thread; None ends it."""
        if self._thread is None and call is not None:
            self._thread = threading.Thread(target=self._run, name=f"tracker {self.name}", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def is_alive(self, wait_s: float) -> bool:
        """Whether it still works after ``wait_s`` seconds."""
        if self._thread is None:
            return False
        self._thread.join(max(0.0, wait_s))
        return self._thread.is_alive()

    # Called from the tracker's thread:

    def start(self, job: Job) -> None:
        self._running[job.cell.cell_id] = job
        self._offsets[job.cell.cell_id] = 0
        self._tracker.start(job.cell)

    def end(self, job: Job, record: CellRecord) -> None:
        started = self._running.pop(job.cell.cell_id, None)
        if started or record.steps:  # after an interrupted run, without a start: forward all its events again
            self._forward(job)  # not ``started``: the folder of an attempt beside a result has moved
        self._offsets.pop(job.cell.cell_id, None)
        self._tracker.end(job.cell, record, job.folder)

    def _run(self) -> None:
        try:
            self._tracker = self._plugin.create(self._settings, self._folder)
            while (call := self._next()) is not None:
                call()
            self._tracker.close()
        except Exception as error:  # whatever happens in a tracker, the run goes on
            reason = (str(error) or repr(error)).splitlines()[0][:300]
            self._say(
                f"warning: the tracker {self.name} is off for the rest of this run; the cells and their records are "
                f"not touched by it ({type(error).__name__}: {reason})"
            )

    def _next(self) -> Callable[[], None] | None:
        while True:
            try:
                return self._calls.get(timeout=POLL_S)
            except queue.Empty:
                for job in self._running.values():
                    self._forward(job)

    def _forward(self, job: Job) -> None:
        key = job.cell.cell_id
        events, self._offsets[key] = read_events(job.folder / EVENTS_FILE, self._offsets.get(key, 0))
        for kind, group in groupby(events, key=type):
            if kind is Step:
                self._tracker.steps(job.cell, [event for event in group if isinstance(event, Step)])
            else:
                for event in group:
                    assert isinstance(event, PhaseEnd)
                    self._tracker.phase_ended(job.cell, event)


def read_events(path: Path, offset: int) -> tuple[list[Step | PhaseEnd], int]:
    """Events in the whole lines of ``EVENTS_FILE`` from ``offset`` on, and their end; a worker may be writing."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read()
    except OSError:  # not there yet
        return [], offset
    whole = new[: new.rfind(b"\n") + 1]
    events: list[Step | PhaseEnd] = []
    for line in whole.splitlines():
        with suppress(ValueError, TypeError):  # a line that a full disk has cut
            fields = json.loads(line)
            events.append(Step(**fields) if "step" in fields else PhaseEnd(**fields))
    return events, offset + len(whole)

"""Trackers see all there is to see, and whatever they do, the cells do not notice."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import cli, registry, trackers
from bench.errors import SpecError
from bench.execution import tracking
from bench.execution.contracts import EVENTS_FILE, PhaseEnd, Step
from bench.execution.runner import CheckBudget, OverBudget
from bench.records.record import CellRecord
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from tests.factories import make_estimate
from tests.sweep.real_runs import run_here, small_cell
from tests.sweeps import Sweep, make_cell

TRACKERS = registry.names("trackers")


class Recorder:
    """Keeps what it is told, in the words of a test."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.seen: list[Step] = []
        self.fails_at = self.hangs_at = ""
        self.released = threading.Event()

    def _note(self, what: str, text: str) -> None:
        self.told.append(text)
        if what == self.fails_at:
            raise ConnectionError("server is gone\nfor good")
        if what == self.hangs_at:
            self.released.wait(20)

    def start(self, cell: Cell) -> None:
        self._note("start", f"start {cell.label}")

    def steps(self, cell: Cell, steps: Sequence[Step]) -> None:
        self.seen += steps
        self._note("steps", f"steps {cell.label} {steps[0].step}-{steps[-1].step}")

    def phase_ended(self, cell: Cell, end: PhaseEnd) -> None:
        self._note("phase", f"{end.phase} {cell.label}")

    def end(self, cell: Cell, record: CellRecord, job: Path) -> None:
        assert job.name == cell.cell_id
        self._note("end", f"{record.status} {cell.label}")

    def close(self) -> None:
        self._note("close", "close")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Stands in for the plugin of every tracker."""
    made, load = Recorder(), registry.load
    plugin: Any = SimpleNamespace(check=lambda settings: None, create=lambda settings, folder: made)  # noqa: ARG005
    fake = SimpleNamespace(load=lambda kind, name: plugin if kind == "trackers" else load(kind, name))
    monkeypatch.setattr(tracking, "registry", fake)
    monkeypatch.setattr(tracking, "POLL_S", 0.05)
    yield made
    made.released.set()


def tracked(label: str, **changes: Any) -> Cell:
    return make_cell(label, trackers=[{"name": TRACKERS[0]}], **changes)


def test_a_real_cell_is_told_from_start_to_end(recorder: Recorder, tmp_path: Path) -> None:
    _, records = run_here([small_cell("F-F-T", {"name": TRACKERS[0]})], tmp_path)
    told = [word for word in recorder.told if not word.startswith("steps")]
    assert told == ["start F-F-T", "setup F-F-T", "load F-F-T", "train F-F-T", "eval F-F-T", "ok F-F-T", "close"]
    assert recorder.told.index("train F-F-T") > recorder.told.index(f"steps F-F-T {recorder.seen[0].step}-5")
    record = records["F-F-T"]
    assert [(step.step, step.loss, step.lr) for step in recorder.seen] == [
        (point.step, point.loss, point.lr) for point in record.loss_curve
    ]
    assert [step.step_s is None for step in recorder.seen] == [True, True, False, False, False, False]


def never(*labels: str) -> CheckBudget:
    over = OverBudget(reason="no", estimate=make_estimate())
    return lambda cells: {cell.cell_id: over for cell in cells if cell.label in labels}


def test_every_record_reaches_the_tracker(recorder: Recorder, sweep: Sweep) -> None:
    cells = [tracked(label) for label in ("ok", "kill@train", "exit@load", "never")]
    sweep.run([*cells, tracked("hang@eval", wall_clock_limit_s=1.0)], check_budget=never("never"))
    ends = [word for word in recorder.told if word.split()[0] not in ("start", "steps", "close")]
    assert ends == ["skipped never", "ok ok", "crashed kill@train", "crashed exit@load", "timeout hang@eval"]
    assert "start never" not in recorder.told


def test_what_trackers_have_of_a_result_stays_until_there_is_another(
    recorder: Recorder, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that is skipped, or fails, may not delete the curves of the result that stays."""
    cell = tracked("ok")
    sweep.run([cell])
    recorder.told.clear()
    sweep.run([cell], fresh=True, check_budget=never("ok"))
    monkeypatch.setenv("FAKE_STATUS", "error")
    sweep.run([cell], fresh=True)
    assert recorder.told == []
    monkeypatch.setenv("FAKE_STATUS", "ok")
    sweep.run([cell], fresh=True)
    assert recorder.told == ["start ok", "ok ok", "close"]


def test_a_result_taken_over_is_told_with_its_steps(recorder: Recorder, sweep: Sweep) -> None:
    """Of a runner that was killed before it had appended the record."""
    cell = tracked("ok")
    sweep.run([cell])
    sweep.file.path.unlink()
    result = sweep.job(cell) / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"steps": 2}))
    lines = [json.dumps({"step": i, "loss": 0.5, "lr": 0.1, "step_s": None, "at": 1.0}) for i in range(2)]
    (sweep.job(cell) / EVENTS_FILE).write_text("\n".join(lines) + "\n")
    recorder.told.clear()
    sweep.run([cell])
    assert recorder.told == ["steps ok 0-1", "ok ok", "close"]


def test_lines_are_taken_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    assert tracking.read_events(path, 0) == ([], 0)
    step = '{"step": 0, "loss": 1.0, "lr": 0.1, "step_s": null, "at": 5.0}\n'
    end = '{"phase": "train", "seconds": 1, "allocated_peak_bytes": 7, "reserved_peak_bytes": 8, "at": 6}\n'
    path.write_text(step + '{"step": 1, "lo\n' + end[:20])
    events, offset = tracking.read_events(path, 0)
    assert events == [Step(step=0, loss=1.0, lr=0.1, step_s=None, at=5.0)], "a torn line is left out"
    path.write_text(step + '{"step": 1, "lo\n' + end)
    events, _ = tracking.read_events(path, offset)
    assert events == [PhaseEnd(phase="train", seconds=1, allocated_peak_bytes=7, reserved_peak_bytes=8, at=6)]


@pytest.mark.parametrize("where", ["start", "end", "close"])
def test_a_tracker_that_fails_is_off_and_told_of_once(recorder: Recorder, sweep: Sweep, where: str) -> None:
    recorder.fails_at = where
    summary = sweep.run([tracked("ok 1"), tracked("ok 2")])
    assert summary.exit_code == 0
    assert set(sweep.statuses().values()) == {"ok"}
    (warning,) = sweep.listening.messages
    assert warning.startswith(f"warning: the tracker {TRACKERS[0]} is off")
    assert "ConnectionError: server is gone)" in warning
    assert len(recorder.told) == {"start": 1, "end": 2, "close": 5}[where]


def test_a_tracker_that_hangs_is_left(recorder: Recorder, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "WAIT_S", 0.4)
    recorder.hangs_at = "start"
    assert sweep.run([tracked("ok 1"), tracked("ok 2")]).exit_code == 0
    assert [message.split(",")[0] for message in sweep.listening.messages] == [
        f"waiting for the tracker {TRACKERS[0]}",
        f"warning: the tracker {TRACKERS[0]} did not take everything in time; the records have it",
    ]
    assert recorder.told == ["start ok 1"]


def test_nothing_happens_where_none_is_set(tmp_path: Path, recorder: Recorder) -> None:
    cell = small_cell("F-F-T")
    run_here([cell], tmp_path)
    assert not recorder.told
    assert not (tmp_path / "demo" / cell.cell_id / EVENTS_FILE).exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tracker")]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_told_before_anything_runs(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)  # noqa: ARG005
    monkeypatch.chdir(root)
    options = ["--results", str(tmp_path / "results"), "--set", f"run.trackers=[{name}]", "--scale", "demo"]
    done = CliRunner().invoke(cli.app, ["specs/table1.yaml", *options])
    assert done.exit_code == 2
    assert f'run: python -m pip install "peft-freeze-bench[{name}]"' in " ".join(done.stderr.split())
    assert not list((tmp_path / "results").rglob("cell.json"))


def test_trackers_are_no_part_of_a_cell(root: Path) -> None:
    source = read_spec(root / "specs" / "table1.yaml")
    plain = expand(source.resolve("demo"))
    logged = expand(source.resolve("demo", [f"run.trackers=[{', '.join(TRACKERS)}]"]))
    assert [cell.cell_id for cell in plain] == [cell.cell_id for cell in logged]
    assert tuple(tracker.name for tracker in logged[0].run.trackers) == TRACKERS


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[tensorbord]", "did you mean 'tensorboard'?"),
        ("[{name: tensorboard, foldr: x}]", "run.trackers[0].foldr: unknown field; did you mean 'folder'?"),
        ("tensorboard", "must be a list"),
        ("[{name: mlflow, tracking_uri: 'https://me:secret@host'}]", "MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_mistakes_are_explained(root: Path, value: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(root / "specs" / "table1.yaml").resolve("demo", [f"run.trackers={value}"])
    assert told in " ".join(str(caught.value).split())

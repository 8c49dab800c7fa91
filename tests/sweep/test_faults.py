"""Whatever is killed, hangs, fills up or is torn: finished records stay, the rest is run again, no process remains."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from bench.errors import RecordError
from bench.execution.runner import NEEDED_BYTES
from bench.executors.local import WORKER
from bench.records.record import Status
from tests.sweeps import Sweep, make_cell, wait_until

PHASES = ("setup", "load", "train", "eval")


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_worker_is_recorded_and_the_sweep_goes_on(sweep: Sweep, phase: str) -> None:
    cells = [make_cell("ok 1"), make_cell(f"kill@{phase}"), make_cell("ok 2")]
    summary = sweep.run(cells)
    assert summary.exit_code == 1
    assert [record.status for record in summary.records] == [Status.OK, Status.CRASHED, Status.OK]
    error = sweep.stored()[f"kill@{phase}"].error
    assert error is not None
    assert (error.type, error.phase) == ("Signal", phase)
    assert error.step == (2 if phase in ("train", "eval") else None)
    assert "killed by SIGKILL" in error.message
    assert error.log_tail == f"log of kill@{phase}"
    sweep.started()
    sweep.run(cells)
    assert sweep.started() == [f"kill@{phase}"], "a rerun completes exactly what is missing"


@pytest.mark.parametrize(("label", "code"), [("exit@train", 3), ("torn@eval", 0)])
def test_a_worker_without_a_valid_result_crashed(sweep: Sweep, label: str, code: int) -> None:
    error = sweep.error(make_cell(label))
    assert (error.type, sweep.statuses()) == ("NoResult", {label: "crashed"})
    assert f"exit code {code}" in error.message
    assert str(sweep.job(make_cell(label)) / "log.txt") in error.message


@pytest.mark.parametrize(
    "last",
    [
        "std::bad_alloc",
        "MemoryError",
        "ImportError: libtorch_cpu.so: failed to map segment from shared object",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. TiB",
    ],
)
def test_a_worker_without_host_memory_is_out_of_memory(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.setenv("FAKE_LAST_WORDS", last)
    error = sweep.error(make_cell("exit@load"))
    assert (error.type, sweep.statuses()) == ("HostOutOfMemory", {"exit@load": "oom"})
    assert last in error.message


def test_the_real_worker_under_an_address_space_limit_is_out_of_memory(real: Sweep) -> None:
    limited = ("sh", "-c", 'ulimit -v 1000000; exec "$@"', "sh", *WORKER)
    error = real.error(make_cell("real"), worker=limited)
    assert (real.statuses(), error.type) == ({"real": "oom"}, "HostOutOfMemory")
    assert "failed to map segment" in error.message


@pytest.mark.parametrize("phase", ["setup", "train"])
def test_a_worker_that_hangs_is_ended(sweep: Sweep, phase: str) -> None:
    error = sweep.error(make_cell(f"hang@{phase}", no_progress_limit_s=0.8))
    assert sweep.statuses() == {f"hang@{phase}": "timeout"}
    assert (error.type, error.phase) == ("Timeout", phase)
    assert "run.no_progress_limit_s = 0.8" in error.message


def test_progress_keeps_a_worker_alive_but_not_beyond_the_wall_clock(sweep: Sweep) -> None:
    """It needs 2.4 s and reports every 0.3 s."""
    summary = sweep.run([make_cell("slow", no_progress_limit_s=1.5)])
    assert summary.records[0].status is Status.OK
    error = sweep.error(make_cell("slow 2", no_progress_limit_s=1.5, wall_clock_limit_s=1.0))
    assert "run.wall_clock_limit_s = 1" in error.message
    assert sweep.statuses()["slow 2"] == "timeout"


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("deaf@load", Status.TIMEOUT),  # ignores SIGTERM
        ("orphan@train", Status.TIMEOUT),  # so does a grandchild in its own session
        ("leave@eval", Status.OK),  # whose parent is gone here: it belongs to init
        ("hang_after", Status.OK),  # a result counts even if its worker then hangs
    ],
)
def test_nothing_is_left_running(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, label: str, status: Status) -> None:
    monkeypatch.setattr("bench.executors.local.GRACE_S", 0.3)
    summary = sweep.run([make_cell(label, no_progress_limit_s=1.0)])
    assert summary.records[0].status is status


def test_a_killed_runner_takes_its_worker_along_and_a_rerun_finishes(sweep: Sweep) -> None:
    cells = [make_cell("ok 1"), make_cell("hang@train"), make_cell("ok 2")]
    runner = sweep.start(cells)
    wait_until(lambda: sweep.processes() and sweep.started()[-1:] == ["hang@train"])
    runner.kill()
    runner.wait()
    wait_until(lambda: not sweep.processes())
    assert sweep.statuses() == {"ok 1": "ok"}
    sweep.run([cells[0], cells[2], make_cell("ok 3")])
    assert sweep.started() == ["ok 2", "ok 3"]
    assert set(sweep.statuses().values()) == {"ok"}


def test_orphans_of_a_killed_runner_are_ended_by_the_next(sweep: Sweep) -> None:
    runner = sweep.start([make_cell("orphan@train")])
    wait_until(lambda: len(sweep.processes()) == 2)
    runner.kill()
    runner.wait()
    wait_until(lambda: len(sweep.processes()) == 1)
    sweep.run([make_cell("ok")])


def test_a_finished_result_survives_its_killed_runner(sweep: Sweep) -> None:
    cell = make_cell("hang_after")
    runner = sweep.start([cell])
    wait_until((sweep.job(cell) / "result.json").exists)
    runner.kill()
    runner.wait()
    assert sweep.statuses() == {}
    sweep.started()
    summary = sweep.run([cell])
    assert sweep.started() == [], "its result was taken over"
    assert summary.exit_code == 0
    assert sweep.statuses() == {"hang_after": "ok"}
    assert sweep.run([cell]).finished_before == 1
    assert len(sweep.file.path.read_bytes().splitlines()) == 1


def test_a_foreign_or_torn_result_is_not_taken_over(sweep: Sweep) -> None:
    first, second, third = make_cell("ok 1"), make_cell("ok 2"), make_cell("ok 3")
    sweep.run([first])
    for cell, content in ((second, (sweep.job(first) / "result.json").read_bytes()), (third, b'{"cell_id"')):
        sweep.job(cell).mkdir()
        (sweep.job(cell) / "result.json").write_bytes(content)
    sweep.started()
    sweep.run([first, second, third])
    assert sweep.started() == ["ok 2", "ok 3"]
    assert len(sweep.file.path.read_bytes().splitlines()) == 3


def test_an_old_result_does_not_pass_for_a_crashed_run(sweep: Sweep) -> None:
    cell = make_cell("ok")
    sweep.run([cell])
    summary = sweep.run([cell.model_copy(update={"label": "kill@train"})], fresh=True)
    assert summary.records[0].status is Status.CRASHED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_stops_cleanly(sweep: Sweep, number: signal.Signals) -> None:
    cells = [make_cell("ok 1"), make_cell("hang@train"), make_cell("ok 2")]
    runner = sweep.start(cells)
    wait_until((sweep.job(cells[1]) / "progress.json").exists)
    os.killpg(runner.pid, number)  # as a terminal does: to the runner's whole process group
    assert runner.wait(15) == 130
    assert sweep.statuses() == {"ok 1": "ok", "hang@train": "interrupted"}
    assert "stopping the running cells (Ctrl-C again: at once)" in sweep.stderr()
    assert _text(sweep.job(cells[1]) / "log.txt") == "log of hang@train\n", "the signal reached the worker, too"
    assert "Traceback" not in sweep.stderr()
    sweep.started()
    sweep.run([cells[0], cells[2]])
    assert sweep.started() == ["ok 2"]


def test_an_interrupt_hides_no_earlier_result(sweep: Sweep) -> None:
    """As after ``--fresh``: here the cell runs again because its record is of another device."""
    cell = make_cell("hang@train")
    sweep.run([make_cell("ok")])
    sweep.file.append(
        sweep.stored()["ok"].model_copy(update={"cell_id": cell.cell_id, "environment": {"device": "T4"}})
    )
    runner = sweep.start([cell])
    wait_until((sweep.job(cell) / "progress.json").exists)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(15) == 130
    assert sweep.file.read()[cell.cell_id].status is Status.OK


@pytest.mark.parametrize(("act", "status"), [("kill@train", "crashed"), ("hang@train", "timeout"), ("ok", "ok")])
def test_a_failed_attempt_hides_and_deletes_no_earlier_result(sweep: Sweep, act: str, status: str) -> None:
    """As after ``--fresh``: the attempt runs beside, and only a result takes the place of another."""
    sweep.run([cell := make_cell("ok")])
    (before,) = sweep.stored().values()
    (sweep.job(cell) / "predictions.jsonl").write_text("of the first")
    again = cell.model_copy(update={"label": act})
    again = again.model_copy(update={"run": cell.run.model_copy(update={"no_progress_limit_s": 1.0})})
    summary = sweep.run([again], fresh=True)
    assert [str(record.status) for record in summary.records] == [status]
    (after,) = sweep.stored().values()
    assert (after == before) == (status != "ok")
    assert [str(record.status) for record in sweep.file.history()] == ["ok", status], "both are kept"
    kept = sweep.job(cell) / "predictions.jsonl"
    assert kept.exists() == (status != "ok")
    assert (sweep.job(cell) / "result.json").exists()
    assert sweep.attempt(cell).exists() == (status != "ok"), "with its log"
    assert sweep.run([cell]).finished_before == 1


def test_an_interrupted_attempt_keeps_the_predictions_of_the_result(sweep: Sweep) -> None:
    sweep.run([cell := make_cell("ok")])
    (sweep.job(cell) / "predictions.jsonl").write_text("of the first")
    other = sweep.stored()["ok"].model_copy(update={"environment": {"device": "T4"}})
    sweep.file.append(other)
    (sweep.job(cell) / "result.json").write_text(other.model_dump_json(by_alias=True))
    runner = sweep.start([cell.model_copy(update={"label": "hang@train"})])
    attempt = sweep.attempt(cell)
    wait_until((attempt / "progress.json").exists)
    runner.send_signal(signal.SIGINT)
    assert runner.wait(15) == 130
    assert sweep.file.read() == {cell.cell_id: other}
    assert (sweep.job(cell) / "predictions.jsonl").read_text() == "of the first"


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_an_exchange_that_was_cut_off_is_finished(sweep: Sweep, moved: int) -> None:
    """A kill before, between and after the two renames: the newer result is there, and none is lost."""
    sweep.run([cell := make_cell("ok")])
    place = sweep.job(cell)
    attempt, replaced = sweep.attempt(cell), place.with_name(f"{place.name}.replaced")
    shutil.copytree(place, attempt)
    (attempt / "predictions.jsonl").write_text("newer")
    record = sweep.stored()["ok"]
    newer = record.model_copy(update={"finished_at": "2999-01-01T00:00:00+00:00"})
    (attempt / "result.json").write_text(newer.model_dump_json(by_alias=True))
    if moved:
        place.rename(replaced)
    if moved > 1:
        attempt.rename(place)
    sweep.started()
    assert sweep.run([cell]).finished_before == 1
    assert sweep.started() == []
    assert sweep.stored() == {"ok": newer}
    assert (place / "predictions.jsonl").read_text() == "newer"
    assert not attempt.exists()
    assert not replaced.exists()


def test_the_second_interrupt_stops_at_once(sweep: Sweep) -> None:
    """The worker ignores SIGTERM, so a clean stop would take the whole grace period of 5 s."""
    cells = [make_cell("ok 1"), make_cell("deaf@train")]
    runner = sweep.start(cells)
    wait_until(lambda: '"train"' in _text(sweep.job(cells[1]) / "progress.json"))
    runner.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in sweep.stderr())
    began = time.monotonic()
    runner.send_signal(signal.SIGINT)
    assert runner.wait(15) == 130
    assert time.monotonic() - began < 3
    assert sweep.statuses() == {"ok 1": "ok"}
    assert "Traceback" not in sweep.stderr()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_file_that_cannot_grow_stops_the_sweep_and_loses_nothing(sweep: Sweep) -> None:
    sweep.run([make_cell("ok 1")])
    line = len(sweep.file.path.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = [make_cell(f"ok {number}") for number in range(1, 6)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(line * 2.5), hard))
    try:
        with pytest.raises(RecordError, match=r"disk full: .*'ok 3' was not appended, the 2 before it are kept"):
            sweep.run(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(sweep.statuses()) == ["ok 1", "ok 2"]
    sweep.started()
    assert sweep.run(many).exit_code == 0
    assert sweep.started() == ["ok 4", "ok 5"], "the third had left its result in its job folder"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_stops_the_sweep(sweep: Sweep) -> None:
    sweep.results.mkdir()
    size = NEEDED_BYTES + (64 << 10)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(sweep.results)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        with pytest.raises(RecordError, match=r"disk full: less than 16 MiB free .* finished cells are kept"):
            sweep.run([make_cell(f"ok {number}") for number in range(20)])
        assert 1 <= len(sweep.statuses()) < 20
        assert set(sweep.statuses().values()) == {"ok"}
    finally:
        subprocess.run(["umount", str(sweep.results)], check=True)


def test_torn_and_damaged_lines_cost_only_their_cells(sweep: Sweep) -> None:
    cells = [make_cell(f"ok {number}") for number in range(4)]
    sweep.run(cells)
    content = bytearray(sweep.file.path.read_bytes())
    content[content.index(b'"label":"ok 1"') + 10] ^= 1
    sweep.file.path.write_bytes(bytes(content[:-20]))
    (sweep.job(cells[3]) / "result.json").unlink()  # the other one is taken over from its job folder
    sweep.started()
    assert sweep.run(cells).finished_before == 3
    assert sweep.started() == ["ok 3"]
    assert set(sweep.statuses()) == {"ok 0", "ok 1", "ok 2", "ok 3"}


def test_two_runners_at_once(sweep: Sweep) -> None:
    hanging = make_cell("hang@train")
    first = sweep.start([hanging])
    try:
        wait_until((sweep.job(hanging) / "progress.json").exists)
        with pytest.raises(RecordError, match=rf"in use by another run \(process {first.pid} on "):
            sweep.run([make_cell("ok")])
        assert sweep.processes(), "the refused runner left the other's worker alone"
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(15) == 130


@pytest.fixture
def real(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep whose other process uses the real worker."""
    for name in sweep.environ:
        monkeypatch.delenv(name)
    return sweep


def test_the_real_worker_dies_with_its_runner(real: Sweep) -> None:
    runner = real.start([make_cell("real")])
    wait_until(lambda: psutil.Process(runner.pid).children(), timeout_s=60)
    (worker,) = psutil.Process(runner.pid).children()
    wait_until(lambda: "torch" in " ".join(Path(f"/proc/{worker.pid}/maps").read_text().split()), timeout_s=60)
    runner.kill()
    runner.wait()
    wait_until(lambda: not worker.is_running())
    assert real.statuses() == {}


def test_the_real_worker_is_killed_in_training(real: Sweep) -> None:
    train = make_cell("real").train.model_copy(update={"steps": 5000})
    cell = make_cell("real").model_copy(update={"train": train})
    runner = real.start([cell])
    wait_until(lambda: '"train"' in _text(real.job(cell) / "progress.json"), timeout_s=90)
    (worker,) = psutil.Process(runner.pid).children()
    worker.kill()
    assert runner.wait(30) == 1
    error = real.stored()["real"].error
    assert error is not None
    assert (error.type, error.phase) == ("Signal", "train")

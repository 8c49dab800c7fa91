"""What counts as done, what is run, in which order and on which device; what a budget skips."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.environment import Gpu
from bench.errors import DataError, RecordError, SpecError
from bench.execution.jobs import Job
from bench.execution.runner import CheckBudget, OverBudget, RunSummary
from bench.executors.inline import FinishedCell
from bench.records.record import Failure, Memory, Status
from bench.spec.cell import Cell
from tests.factories import make_estimate, make_record
from tests.sweeps import Listening, Sweep, cells_ok, make_cell


def test_cells_run_in_order_and_are_skipped_when_done(sweep: Sweep) -> None:
    cells = [make_cell("ok 2"), make_cell("ok 1")]
    summary = sweep.run(cells)
    assert sweep.told == ["begin 2 0 1", "start ok 2", "ok ok 2", "start ok 1", "ok ok 1", "end"]
    assert [record.label for record in summary.records] == ["ok 2", "ok 1"]
    assert (summary.finished_before, summary.exit_code, str(summary)) == (0, 0, "2 cells: 2 ok")
    assert summary.stored == sweep.file.read()
    again = sweep.run(cells)
    assert (again.records, again.stored) == (summary.records, summary.stored)
    assert str(again) == "2 cells: 2 ok (2 finished before)"
    assert sweep.started() == ["ok 2", "ok 1"]
    sweep.run(cells[:1], fresh=True)
    assert sweep.started() == ["ok 2"]
    assert len(sweep.file.path.read_bytes().splitlines()) == 3


def test_an_edited_spec_runs_only_what_changed(sweep: Sweep) -> None:
    sweep.run(cells_ok(2))
    sweep.started()
    summary = sweep.run([make_cell("ok 1"), make_cell("ok 2", lr=2e-3), make_cell("ok 3")])
    assert sweep.started() == ["ok 2", "ok 3"]
    assert summary.finished_before == 1
    sweep.run([make_cell("ok 1", no_progress_limit_s=60), make_cell("ok 2")])
    assert sweep.started() == [], "a limit decides nothing, and the old value is still done"


def test_other_data_run_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DATA_DIGEST", "0" * 64)
    sweep.run(cells_ok(1))
    monkeypatch.setenv("FAKE_DATA_DIGEST", sweep.environ["FAKE_DATA_DIGEST"])
    sweep.run(cells_ok(1))
    assert "cells with a result run again: 1 (data changed). The earlier records stay in the file" in sweep.told[0]
    assert sweep.started() == ["ok 1", "ok 1"]
    sweep.run(cells_ok(1))
    assert sweep.started() == []


def test_another_device_runs_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    on_any = cells_ok(1, device="auto")
    sweep.run(on_any)
    gpus = [Gpu(token="GPU-1", name="NVIDIA T4")]
    monkeypatch.setattr("bench.execution.inputs.usable_gpus", lambda device: [] if device == "cpu" else gpus)
    monkeypatch.setenv("FAKE_DEVICE", "NVIDIA T4")
    sweep.run(on_any)
    assert "this cell ran on NVIDIA T4, but cpu is what" in sweep.told[-2], "which the executor expected"
    assert sweep.started() == ["ok 1", "ok 1"]
    sweep.run(on_any)
    assert sweep.started() == []
    gpus[0] = Gpu(token="GPU-1", name="NVIDIA H100")
    sweep.run(on_any)
    assert sweep.started() == ["ok 1"]


def test_notes_of_records_are_told_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DATA_NOTES", '["2 files were left out"]')
    sweep.run(cells_ok(2))
    assert sweep.told.count("note: easy_vqa: 2 files were left out") == 1


class InThisProcess:
    """An executor whose second cell is interrupted while it runs in this process."""

    in_process = True
    slots = 1

    def start(self, cell: Cell, job: Path) -> FinishedCell:
        if cell.label == "ok 2":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        shutil.copy(job / "cell.json", job / "result.json")
        return FinishedCell("cpu")


def test_an_executor_in_this_process_is_interrupted(sweep: Sweep) -> None:
    before = signal.getsignal(signal.SIGINT)
    summary = sweep.run(cells_ok(3), executor=InThisProcess())
    assert (summary.interrupted, [record.label for record in summary.records]) == (True, ["ok 1"])
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_is_ignored_stays_ignored(sweep: Sweep) -> None:
    """As a shell starts what runs in the background."""

    class Interrupting(Listening):
        def cell_started(self, cell: Cell) -> None:
            super().cell_started(cell)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        summary = sweep.run(cells_ok(2), reporter=Interrupting())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (summary.interrupted, len(summary.records)) == (False, 2)


def test_one_cell_per_gpu_at_a_time_each_pinned(sweep: Sweep) -> None:
    gpus = (Gpu(token="GPU-a", name="A"), Gpu(token="1", name="B"))
    sweep.run([make_cell(f"slow {number}", device="auto") for number in range(4)], gpus=gpus)
    starts = sweep.notes("start")
    ends = {note["label"]: note["at"] for note in sweep.notes("end")}
    assert sorted(note["CUDA_VISIBLE_DEVICES"] for note in starts) == ["1", "1", "GPU-a", "GPU-a"]
    for token in ("GPU-a", "1"):
        first, second = (note for note in starts if note["CUDA_VISIBLE_DEVICES"] == token)
        assert ends[first["label"]] < second["at"], "two cells on one GPU at a time"
    assert starts[1]["at"] < min(ends.values()), "the GPUs were not used at the same time"


def test_a_worker_environment_is_pinned(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    sweep.run([make_cell("ok 1", threads=3)])
    (note,) = sweep.notes()
    assert (note["CUDA_VISIBLE_DEVICES"], note["OMP_NUM_THREADS"], note["PYTHONHASHSEED"]) == ("", "3", "0")


def test_what_is_missing_is_told_before_anything_runs(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # also on a machine with a GPU
    content = make_cell("ok 2").model_dump(mode="json")
    missing = Cell.model_validate(content | {"data": {"name": "vqa_rad", "root": str(tmp_path / "none")}})
    with pytest.raises(DataError):
        sweep.run([make_cell("ok 1"), missing])
    with pytest.raises(SpecError, match="no CUDA device is visible"):
        sweep.run([make_cell("ok 1", device="cuda")], executor="local")
    with pytest.raises(SpecError, match="did you mean 'local'"):
        sweep.run([make_cell("ok")], executor="locl")
    assert sweep.started() == []


def test_no_cells_no_run(sweep: Sweep) -> None:
    assert sweep.run([]) == RunSummary(records=[], cells=0, finished_before=0)
    assert not sweep.results.exists()


def test_a_killed_worker_ran_out_of_memory_if_the_kernel_says_so(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([4, 5])
    monkeypatch.setattr("bench.executors.local.oom_kills", lambda: next(counts))
    cell = make_cell("kill@train")
    summary = sweep.run([cell])
    assert (summary.records[0].status, summary.exit_code) == (Status.OOM, 0), "out of memory is a result"
    sweep.started()
    assert sweep.run([cell]).finished_before == 1
    assert sweep.started() == []


@pytest.mark.parametrize(
    ("status", "foreign", "again"),
    [("oom", 0, []), ("oom", 3 << 20, []), ("oom", 2 << 30, ["ok 1"]), ("ok", 2 << 30, [])],
)
def test_out_of_memory_is_final_unless_another_process_held_some(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, status: str, foreign: int, again: list[str]
) -> None:
    """The driver alone shows a few MiB on an idle card."""
    monkeypatch.setenv("FAKE_STATUS", status)
    monkeypatch.setenv("FAKE_FOREIGN", str(foreign))
    assert sweep.run(cells_ok(1)).exit_code == 0
    held = "other processes held 2.00 GiB of the GPU when this cell started"
    assert any(held in text for text in sweep.told) is (foreign == 2 << 30)
    assert any("; the next run tries" in text for text in sweep.told) is bool(again)
    sweep.started()
    sweep.run(cells_ok(1))
    assert sweep.started() == again


def test_want_of_other_memory_than_what_others_held_is_final() -> None:
    cell = make_cell("ok")
    environment = {"device": "NVIDIA A100", "gpus": [{"name": "NVIDIA A100", "memory_bytes": 80 << 30}]}

    def is_final(kind: str, held: int, **found: object) -> bool:
        error, memory = Failure(type=kind, message="no memory"), Memory(foreign_bytes=held)
        return make_record(cell, status=Status.OOM, error=error, memory=memory, environment=found).is_final

    assert is_final("OutOfMemoryError", 500 << 20, **environment), "a desktop"
    assert not is_final("OutOfMemoryError", 5 << 30, **environment)
    assert not is_final("OutOfMemoryError", 500 << 20, device="NVIDIA A100"), "of a card of unknown size"
    assert is_final("HostOutOfMemory", 5 << 30, **environment)


def test_a_folder_that_cannot_be_removed_or_renamed_is_in_nobodys_way(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell("ok")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a network drive that keeps what is still open
        for _ in range(4):
            assert sweep.run([cell], fresh=True).exit_code == 0

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    sweep.file.path.unlink()
    monkeypatch.setattr(Job, "take_over", read_only)
    with pytest.raises(RecordError, match=r"Read-only file system.*nothing was run"):
        sweep.run([cell])


def test_a_new_attempt_begins_without_files_of_the_last(tmp_path: Path) -> None:
    job = Job(cell=make_cell("ok"), folder=tmp_path, data_digest=None, weights_digest=None)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(b"of an earlier attempt")
    job.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["cell.json"]


@pytest.mark.parametrize("status", Status)
def test_exit_codes(status: Status) -> None:
    record = make_record(make_cell("ok"), status=status)
    code = 0 if status in (Status.OK, Status.OOM, Status.SKIPPED) else 1
    assert RunSummary(records=[record], cells=1, finished_before=0).exit_code == code
    assert RunSummary(records=[record], cells=2, finished_before=0).exit_code == 1
    assert RunSummary(records=[record], cells=1, finished_before=0, interrupted=True).exit_code == 130


def over_budget(*labels: str, asked: list[str] | None = None) -> CheckBudget:
    """Names the cells with these labels; ``asked`` takes up what it was asked about."""

    def check(cells: Sequence[Cell]) -> dict[str, OverBudget]:
        if asked is not None:
            asked.extend(cell.label for cell in cells)
        over = OverBudget(reason="needs 40.75 GiB", estimate=make_estimate(40.0))
        return {cell.cell_id: over for cell in cells if cell.label in labels}

    return check


def test_cells_that_cannot_fit_become_records_and_run_later(sweep: Sweep) -> None:
    cells = cells_ok(3)
    sweep.run(cells[:1])
    sweep.started()
    asked: list[str] = []
    summary = sweep.run(cells, check_budget=over_budget("ok 1", "ok 3", asked=asked))
    assert asked == ["ok 2", "ok 3"], "not about cells that are done"
    assert sweep.started() == ["ok 2"]
    assert sweep.told == ["ok 3: skipped (needs 40.75 GiB)", "begin 3 2 1", "start ok 2", "ok ok 2", "end"]
    assert (str(summary), summary.exit_code) == ("3 cells: 2 ok, 1 skipped (1 finished before)", 0)
    record = sweep.stored()["ok 3"]
    assert record == summary.records[2]
    assert (record.estimate, record.params) == (make_estimate(40.0), make_estimate(40.0).params)
    assert record.error is not None
    assert (record.error.type, record.error.message, record.error.phase) == ("DoesNotFit", "needs 40.75 GiB", None)
    assert record.data_digest
    assert record.settings
    assert not sweep.job(cells[2]).exists()
    assert sweep.run(cells).finished_before == 2
    assert (sweep.started(), set(sweep.statuses().values())) == (["ok 3"], {"ok"})
    asked.clear()
    sweep.run(cells, check_budget=over_budget(asked=asked))
    assert asked == [], "all is done"


def test_a_skipped_cell_keeps_its_earlier_result(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DATA_DIGEST", "0" * 64)
    sweep.run(cells_ok(1))
    summary = sweep.run(cells_ok(1), check_budget=over_budget("ok 1"))
    assert ([record.status for record in summary.records], summary.exit_code) == ([Status.SKIPPED], 0)
    assert sweep.told == ["ok 1: skipped (needs 40.75 GiB)"], "it is not replaced"
    assert sweep.statuses() == {"ok 1": "ok"}
    assert {key: str(record.status) for key, record in summary.stored.items()} == {cells_ok(1)[0].cell_id: "ok"}


def test_an_interrupted_estimate_frees_the_results(sweep: Sweep) -> None:
    def stop(_: Sequence[Cell]) -> dict[str, OverBudget]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(cells_ok(1), check_budget=stop)
    assert sweep.run(cells_ok(1)).exit_code == 0

"""What ``--forget`` removes and what it leaves; that results come back from job folders is said."""

from __future__ import annotations

import signal

import pytest

from bench.errors import RecordError
from bench.execution.jobs import forget
from bench.records.store import encode
from tests.sweeps import Sweep, cells_ok, make_cell, wait_until

CELLS = cells_ok(3)


def test_records_and_folders_of_the_cells_go_and_all_else_stays(sweep: Sweep) -> None:
    sweep.run(CELLS)
    sweep.run(CELLS[:1], fresh=True)
    with sweep.file.path.open("ab") as file:
        file.write(b'{"checksum":"damaged\n')
    beside = sweep.attempt(CELLS[0])
    beside.mkdir()
    first_two = encode(sweep.stored()["ok 2"]).rstrip(b"\n") + b"," + encode(sweep.stored()["ok 1"])  # glued
    sweep.file.path.write_bytes(sweep.file.path.read_bytes() + first_two)
    gone = forget(CELLS[:1], results=sweep.results, warn=print)
    assert str(gone) == "3 records and 2 job folders"
    assert gone.cell_ids == {CELLS[0].cell_id}
    assert sweep.statuses() == {"ok 3": "ok", "ok 2": "ok"}
    assert b'{"checksum":"damaged\n' in sweep.file.path.read_bytes()
    assert not beside.exists()
    assert not sweep.job(CELLS[0]).exists()
    assert sweep.job(CELLS[1]).exists()
    sweep.started()
    sweep.run(CELLS)
    assert sweep.started() == ["ok 1"], "it begins anew, and the others are done"


def test_what_is_left_of_a_glued_line_stays_and_an_empty_file_goes(sweep: Sweep) -> None:
    sweep.run(CELLS[:1])
    whole = sweep.file.path.read_bytes()
    damaged = b'{"checksum":"0123","cell_id":"a \xff torn record'
    sweep.file.path.write_bytes(damaged + whole)
    forget(CELLS, results=sweep.results, warn=print)
    assert sweep.file.path.read_bytes() == damaged + b"\n"
    sweep.file.path.write_bytes(whole)
    forget(CELLS, results=sweep.results, warn=print)
    assert not sweep.file.path.exists(), "a scale without a record has no results"


def test_a_file_that_cannot_be_read_keeps_its_folders(sweep: Sweep) -> None:
    sweep.run(CELLS[:1])
    sweep.file.path.write_bytes(b"my notes")
    with pytest.raises(RecordError, match="not a records file"):
        forget(CELLS, results=sweep.results, warn=print)
    assert sweep.job(CELLS[0]).exists()


def test_processes_that_a_killed_run_left_are_ended(sweep: Sweep) -> None:
    orphan = make_cell("orphan@eval")
    runner = sweep.start([orphan])
    wait_until(lambda: len(sweep.processes()) > 1)
    runner.kill()
    runner.wait(15)
    wait_until(sweep.processes)
    forget([orphan], results=sweep.results, warn=print)
    assert not sweep.processes()


def test_nothing_there_is_nothing_to_forget(sweep: Sweep) -> None:
    assert str(forget(CELLS, results=sweep.results, warn=print)) == "0 records and 0 job folders"
    assert not sweep.results.exists()


def test_a_running_sweep_is_left_alone(sweep: Sweep) -> None:
    hanging = make_cell("hang@train")
    runner = sweep.start([CELLS[0], hanging])
    try:
        wait_until((sweep.job(hanging) / "progress.json").exists)
        with pytest.raises(RecordError, match="in use by another run"):
            forget([CELLS[0]], results=sweep.results, warn=print)
        assert sweep.job(CELLS[0]).exists()
    finally:
        runner.send_signal(signal.SIGINT)
        assert runner.wait(15) == 130
    assert sweep.statuses()["ok 1"] == "ok"


def test_a_deleted_records_file_comes_back_and_that_is_said(sweep: Sweep) -> None:
    sweep.run(CELLS)
    sweep.file.path.unlink()
    assert sweep.run(CELLS).finished_before == 3
    told = f"{sweep.file.path} was not there: its results come from the job folders beside it; "
    assert f"{told}--forget --scale demo removes both" in sweep.told

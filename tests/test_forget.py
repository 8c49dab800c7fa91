"""What ``--forget`` removes and what it leaves; that results come back from job folders is said."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import RecordError
from bench.forget import forget
from bench.store import encode
from tests.sweeps import Sweep, make_cell, wait_until
from tests.test_runner import Listening

CELLS = [make_cell("ok 1"), make_cell("ok 2"), make_cell("ok 3")]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path)
    for name, value in sweep.environ.items():
        monkeypatch.setenv(name, value)
    yield sweep
    assert not sweep.processes()


def test_records_and_folders_of_the_cells_go_and_all_else_stays(sweep: Sweep) -> None:
    sweep.run(CELLS)
    sweep.run(CELLS[:1], fresh=True)
    with sweep.file.path.open("ab") as file:
        file.write(b'{"checksum":"damaged\n')
    beside = sweep.job(CELLS[0]).with_name(f"{CELLS[0].cell_id}.attempt")
    beside.mkdir()
    first_two = encode(sweep.stored()["ok 2"]).rstrip(b"\n") + b"," + encode(sweep.stored()["ok 1"])  # glued
    sweep.file.path.write_bytes(sweep.file.path.read_bytes() + first_two)
    gone = forget(CELLS[:1], results=sweep.results, warn=print)
    assert str(gone) == "3 records and 2 job folders"
    assert sweep.statuses() == {"ok 3": "ok", "ok 2": "ok"}
    assert b'{"checksum":"damaged\n' in sweep.file.path.read_bytes()
    assert not beside.exists()
    assert not sweep.job(CELLS[0]).exists()
    assert sweep.job(CELLS[1]).exists()
    sweep.started()
    sweep.run(CELLS)
    assert sweep.started() == ["ok 1"], "it begins anew, and the others are done"


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
    listening = Listening()
    assert sweep.run(CELLS, reporter=listening).finished_before == 3
    told = f"{sweep.file.path} was not there: its results come from the job folders beside it; --forget removes both"
    assert told in listening.told


def test_the_option_takes_the_selected_cells_and_goes_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = str(root / "specs" / "table1.yaml")
    done = CliRunner().invoke(app, [spec, "--scale", "demo", "--forget", "--only", "F-T-*", "--json"])
    assert done.exit_code == 0
    assert "removed 0 records and 0 job folders of 2 cells under results/table1" in done.stderr
    assert done.stdout.count("cell_id") == 2
    for option in ("--list", "--fresh", "--report-only", "--estimate"):
        done = CliRunner().invoke(app, [spec, "--forget", option])
        assert done.exit_code == 2
        assert "do not go together" in done.stderr

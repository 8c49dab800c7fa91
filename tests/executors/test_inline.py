"""The inline executor runs the real worker's entry in this process and leaves what a worker leaves."""

from __future__ import annotations

from pathlib import Path

from bench.execution.runner import run
from bench.records.record import Status
from tests.sweeps import Listening, data_digest, make_cell


def test_a_cell_runs_in_this_process(tmp_path: Path) -> None:
    cell = make_cell("inline")
    summary = run([cell], results=tmp_path, executor="inline", fresh=False, reporter=Listening())
    (record,) = summary.records
    assert (record.status, record.error) == (Status.OK, None)
    assert record.data_digest == data_digest()
    assert (tmp_path / "demo" / cell.cell_id / "result.json").exists()
    again = run([cell], results=tmp_path, executor="inline", fresh=False, reporter=Listening())
    assert again.finished_before == 1

"""The rule by which a stored record is done: each reason, and nothing said where nothing is known."""

from __future__ import annotations

from typing import Any

import pytest

from bench.errors import DataError
from bench.execution import inputs
from bench.execution.inputs import UNKNOWN, Inputs, stale, why_not_done
from bench.records.record import Status
from bench.spec.cell import Cell
from tests.factories import make_record
from tests.sweeps import make_cell

SAME: dict[str, Any] = {"data_digest": "d", "weights_digest": "w", "devices": frozenset({"cpu"})}


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({}, None),
        ({"data_digest": "e"}, "stale (data changed)"),
        ({"weights_digest": "x"}, "stale (weights changed)"),
        ({"weights_digest": None}, "stale (weights changed)"),
        ({"devices": frozenset({"NVIDIA T4"})}, "stale (ran on cpu, not on NVIDIA T4)"),
        ({"data_digest": UNKNOWN, "weights_digest": UNKNOWN, "devices": frozenset()}, None),
    ],
)
def test_reasons(now: dict[str, Any], reason: str | None) -> None:
    record = make_record(make_cell("ok"), cuda=False, data_digest="d", weights_digest="w")
    assert why_not_done(record, Inputs(**SAME | now)) == reason


def test_what_is_no_result_is_not_done() -> None:
    assert why_not_done(None, Inputs(**SAME)) == "not run"
    for status in Status:
        record = make_record(make_cell("ok"), cuda=False, status=status, data_digest="d", weights_digest="w")
        assert (why_not_done(record, Inputs(**SAME)) is None) == status.is_result


def test_a_result_that_ended_before_its_data_were_read_makes_no_other_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> str:
        raise DataError("the data are not here")

    monkeypatch.setattr(inputs, "data_digest", gone)
    cells = [make_cell("ok 1"), make_cell("ok 2"), make_cell("ok 3")]
    records = [make_record(cell, data_digest="d", finished_at=f"2026-01-0{1 + n}") for n, cell in enumerate(cells)]
    records[2] = records[2].model_copy(update={"data_digest": None, "status": Status.OOM})
    stored = {record.cell_id: record for record in records}
    assert stale(cells, stored) == {cells[2].cell_id: "ended before its data were read"}
    assert stale(cells[2:], stored) == {}, "nothing can be said of one record alone"


def test_files_that_methods_name_count_where_they_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_file(label: str) -> Cell:
        method = {"type": "peft_config", "peft_type": "LORA", "corda_config": {"covariance_file": "/not/here/p.bin"}}
        content = make_cell(label).model_dump(mode="json")
        return Cell.model_validate(content | {"parts": content["parts"] | {"dec": "B"}, "methods": {"B": method}})

    monkeypatch.setattr(inputs, "data_digest", lambda _: "d")
    plain, adapted, again = make_cell("ok 1"), with_file("ok 2"), with_file("ok 3")
    stored = {
        cell.cell_id: make_record(cell, data_digest="d", weights_digest=digest, finished_at=f"2026-01-0{day}")
        for day, (cell, digest) in enumerate(((adapted, "file"), (again, "file"), (plain, None)), start=1)
    }
    assert stale([plain, adapted, again], stored) == {}
    stored[adapted.cell_id] = stored[adapted.cell_id].model_copy(update={"weights_digest": "older file"})
    assert stale([plain, adapted, again], stored) == {adapted.cell_id: "weights changed"}

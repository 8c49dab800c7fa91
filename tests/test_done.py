"""The rule by which a stored record is done: each reason, and nothing said where nothing is known."""

from __future__ import annotations

from typing import Any

import pytest

from bench.done import UNKNOWN, Inputs, why_not_done
from bench.record import Status
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

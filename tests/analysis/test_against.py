"""Any two cells of one set of records: what each costs and wins beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.compare import Comparison, compare_with_cell
from bench.analysis.tolerances import CompareOptions
from bench.errors import SpecError
from bench.sources import open_records
from bench.spec.cell import Cell
from tests.analysis.conftest import Folder, usual
from tests.analysis.test_compare import change

REFERENCE = "F-LoRA-LoRA rank=4"


def against(folder: Folder, label: str = REFERENCE, **options: Any) -> Comparison:
    with open_records(str(folder)) as source:
        return compare_with_cell(source, label, CompareOptions(), **options)


def better(cell: int, question: int) -> bool:
    """The second cell answers forty questions more than the first, and none less."""
    return usual(0, question) or (cell == 1 and question % 10 < 4 and question % 2 == 1)


def test_every_other_cell_is_tested_on_the_questions_it_shares(a: Folder) -> None:
    found = against(a.fill(better))
    assert [row.label for row in found.rows] == [cell.label for cell in a.cells[1:3]]
    one, same = change(found, "global", 0), change(found, "global", 1)
    assert one.change == pytest.approx(20.0)
    assert (one.verdict, one.reason) == ("better", "mcnemar")
    assert (same.change, same.verdict, same.p) == (0, "within noise", 1)
    assert change(found, "params").verdict == "worse"
    assert found.exit_code == 0, "cells are meant to differ"


def test_the_other_way_round(a: Folder) -> None:
    found = against(a.fill(better), a.cells[1].label, only=[REFERENCE])
    [row] = found.rows
    assert row.label == REFERENCE
    assert change(found, "global").change == pytest.approx(-20.0)


def test_settings_are_meant_to_differ_and_not_told(a: Folder) -> None:
    found = against(a.fill())
    assert not any(row.differences for row in found.rows)
    a.put(2, environment={"device": "cpu", "cpu": "EPYC"})
    found = against(a)
    assert [one.what for one in found.rows[1].differences] == ["device"]
    assert change(found, "step_time", 1).verdict == "not comparable"


def test_seeds_are_paired(tmp_path: Path, seeded: list[Cell]) -> None:
    folder = Folder(tmp_path / "s", seeded).fill(cells=5)
    [row] = against(folder).rows
    assert [(pair.a.record.seed, pair.b.record.seed) for pair in row.pairs] == [(1, 1), (2, 2)]


def test_a_cell_that_there_is_not(a: Folder, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="has no such cell; did you mean 'LoRA-LoRA-LoRA rank=4'"):
        against(a.fill(), "LoRA-LoRA-LoRA rank=5")
    with pytest.raises(SpecError, match=r"--only 'X\*': no cell of .* has such a label"):
        against(a, only=["X*"])
    alone = Folder(tmp_path / "alone", a.cells)
    alone.put(0)
    with pytest.raises(SpecError, match="has no other cell"):
        against(alone)

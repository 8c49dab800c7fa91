"""The cells of Table 1 with records beside the published values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import CellRecord
from bench.report import build_table
from bench.report.table import Table, Value
from bench.spec.cell import Cell
from bench.spec.sections import Spec
from tests.factories import load_cells, make_record


@dataclass
class Case:
    """A spec at a scale, its cells and their records; tests change what they are about."""

    spec: Spec
    cells: list[Cell]
    records: dict[str, CellRecord] = field(default_factory=dict)

    @property
    def scale(self) -> str:
        return self.cells[0].scale

    def put(self, index: int, record: CellRecord) -> None:
        self.records[self.cells[index].cell_id] = record

    def fill(self, **changes: Any) -> Case:
        for index, cell in enumerate(self.cells):
            self.put(index, make_record(cell, index, **changes))
        return self

    def table(self) -> Table:
        return build_table(self.spec, self.scale, self.cells, self.records)

    def respec(self, **changes: Any) -> None:
        self.spec = self.spec.model_copy(update=changes)


def entry(table: Table, row: int, column: str) -> Value:
    return table.rows[row].values[[c.value for c in table.columns].index(column)]


@pytest.fixture(scope="session")
def _table1(root: Path) -> dict[str, tuple[Spec, list[Cell]]]:
    return {scale: load_cells(root / "specs" / "table1.yaml", scale) for scale in ("paper", "demo")}


@pytest.fixture
def paper(_table1: dict[str, tuple[Spec, list[Cell]]]) -> Case:
    """Table 1 at the paper's scale, no records."""
    return Case(*_table1["paper"])


@pytest.fixture
def demo(_table1: dict[str, tuple[Spec, list[Cell]]]) -> Case:
    """Table 1 at the demo scale, no records."""
    return Case(*_table1["demo"])

"""Ids of the cells of all specs: by them records are found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.spec.load import read_spec
from tests.factories import load_cells
from tests.golden import kept


def test_cell_ids(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # ids are the same wherever the program runs
    found = {}
    for path in sorted((root / "specs").rglob("*.yaml")):
        scales = {scale: load_cells(path, scale)[1] for scale in read_spec(path).scales}
        found[path.stem] = {scale: [[cell.label, cell.cell_id] for cell in cells] for scale, cells in scales.items()}
    assert found == kept("cell_ids.json", found)

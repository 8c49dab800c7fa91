"""What ``--estimate --json`` says of Tables 1 to 5, with the newest tested releases of the libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import bench, kept

MACHINE = ("torch", "transformers", "peft", "context_from")
"""Assumptions that are versions, and the source of a number that is compared itself."""


@pytest.mark.parametrize(("scale", "only"), [("demo", "*"), ("paper", "T-T*[!8]")])
def test_estimates(root: Path, tmp_path: Path, scale: str, only: str) -> None:
    specs = [str(root / "specs" / f"table{number}.yaml") for number in range(1, 6)]
    out = bench(tmp_path, *specs, "--scale", scale, "--gpu", "ampere", "--only", only, "--estimate", "--json")
    found = {table["spec"]: dict(map(estimate, table["records"])) for table in json.loads(out)}
    expected = kept(f"estimates_{scale}.json", found)
    for table, cells in expected.items():
        for label, cell in cells.items():
            assert found[table].get(label) == cell, (table, label)
    assert {table: list(cells) for table, cells in found.items()} == {t: list(c) for t, c in expected.items()}


def estimate(record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Label and content of a record."""
    for name in MACHINE:
        assert record["estimate"]["assumed"].pop(name)
    return record["label"], {key: value for key, value in record.items() if key not in ("label", "labels", "parts")}

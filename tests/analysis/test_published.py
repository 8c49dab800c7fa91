"""Published values: whose they are, and which contradict themselves."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.analysis.published import find, implied_global
from bench.spec.sections import Published
from tests.factories import load_cells
from tests.report.conftest import Case

COUNTS = {"open": [703, 704, 705, 706], "closed": [355]}
FLAGGED = {
    ("1", "F", "LoRA", "LoRA", "4"): 19.4,
    ("1", "F", "LoRA", "LoRA", "8"): 19.4,
    ("1", "LoRA", "LoRA", "LoRA", "8"): 49.5,
    ("1", "F", "T", "LoRA", "4"): 55.5,
    ("2", "F", "F", "Prefix", ""): 17.0,
    ("2", "F", "Prefix", "Prefix", ""): 17.0,
    ("2", "T", "Prefix", "Prefix", ""): 38.6,
}
"""Table, pattern, rank -> global that open and closed imply."""


def test_exactly_the_known_rows_of_the_paper_contradict_themselves(shared_data: Path) -> None:
    table = shared_data.parent / "reference" / "mile_tables.csv"
    if not table.is_file():
        pytest.skip("the paper's numbers are not beside this checkout")
    found = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {"open": float(row["opened"]), "closed": float(row["closed"]), "global": float(row["global"])}
            implied = implied_global(values, COUNTS)
            if row["table"] != "5" and implied is not None:
                found[row["table"], row["vit"], row["jtm"], row["dec"], row["rank"]] = round(implied, 1)
    assert found == FLAGGED


@pytest.mark.parametrize(("number", "flags"), [(1, 4), (2, 3), (3, 0), (4, 0)])
def test_the_specs_flag_the_same_rows(root: Path, number: int, flags: int) -> None:
    spec, cells = load_cells(root / "specs" / f"table{number}.yaml")
    table = Case(spec, cells).table()
    flagged = {
        tuple(e.text for e in row.values if not e.digits) for row in table.rows if any(e.flagged for e in row.values)
    }
    assert len(flagged) == flags
    assert flagged == {key[1:4] + key[4:] * bool(key[4]) for key in FLAGGED if key[0] == str(number)}
    notes = [note for note in table.footnotes if note.startswith("†")]
    assert len(notes) == bool(flags)
    if number == 1:
        assert "LoRA-LoRA-LoRA rank=8 (printed 49.57, implied 49.53)" in notes[0]


def test_every_published_row_of_the_specs_finds_its_cell(root: Path) -> None:
    for number, rows in ((1, 10), (2, 4), (3, 5), (4, 4)):
        spec, cells = load_cells(root / "specs" / f"table{number}.yaml")
        table = Case(spec, cells).table()
        assert len(table.rows) == rows
        assert all(e.published is not None for row in table.rows for e in row.values if e.digits), number


def test_without_counts_nothing_is_flagged() -> None:
    values = {"open": 3.57, "closed": 50.7, "global": 20.34}
    assert implied_global(values, None) is None
    assert implied_global(values, COUNTS) is not None
    assert implied_global({"open": 3.57, "closed": 50.7}, COUNTS) is None


def test_a_row_belongs_to_the_cell_that_agrees_in_all_it_names() -> None:
    published = Published(
        source="a paper", rows=[{"vit": "F", "rank": 4, "open": "1.5%"}, {"vit": "F", "open": 2, "closed": None}]
    )
    by_rank = find(published, {"vit": "F", "rank": 4.0}, "paper")
    by_part = find(published, {"vit": "F", "rank": 8}, "paper")
    assert by_rank is not None
    assert by_rank.values == {"open": 1.5}
    assert by_part is not None
    assert by_part.values == {"open": 2.0}
    assert find(published, {"vit": "T", "rank": 4}, "paper") is None
    assert find(published, {}, "paper") is None
    assert find(None, {"vit": "F"}, "paper") is None

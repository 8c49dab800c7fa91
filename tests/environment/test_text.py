"""Sizes and texts: as people write them, and cleaned where they are shown."""

from __future__ import annotations

import pytest

from bench.errors import SpecError
from bench.format import csv_text, one_line, printable, visible
from bench.units import gib, parse_size, size_text

HOSTILE = "a\u200b\u202eb\x1b[31m\n c"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("24GiB", 24 * 2**30), ("24GB", 24 * 10**9), ("24000MiB", 24000 * 2**20), ("2TiB", 2**41), ("1KiB", 1024)),
        *(("  1.5 gib ", 3 * 2**29), ("0.1MB", 100_000)),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--budget") == size


@pytest.mark.parametrize(
    "text",
    [
        *("24", "24.0", "", "GiB", "24G", "24 GiBs", "-1GiB", "0GiB", "1e3GiB", "nanGiB", "1,5GiB", "٢GiB", "0.1.2GiB"),
        "9" * 400 + "GiB",
    ],
)
def test_everything_else_names_option_and_units(text: str) -> None:
    with pytest.raises(SpecError, match=r"--max-batch .*e\.g\. --max-batch 24GiB \(units: KiB, MiB, GiB, TiB, KB"):
        parse_size(text, "--max-batch")


def test_texts_of_sizes() -> None:
    sizes = {24 * 2**30: "24 GiB", 24 * 10**9: "22.35 GiB", 2**29: "512 MiB", 2**40: "1,024 GiB", 10 * 2**30: "10 GiB"}
    assert {size: size_text(size) for size in sizes} == sizes
    assert gib(2**30 * 5 // 2) == "2.50"


def test_a_terminal_gets_escapes_and_a_document_what_can_be_seen() -> None:
    assert printable(HOSTILE) == "a\\u200b\\u202eb\\x1b[31m\n c"
    assert printable("Größe\nb", keep="") == "Größe\\nb"
    assert visible(HOSTILE) == "ab[31m c"
    assert one_line("  a\t b\n\u2066c ") == "a b c"
    assert visible("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "  =1", "＝1", "|x", "%x"])
def test_a_spreadsheet_runs_no_text(text: str) -> None:
    assert csv_text(text) == "'" + text
    assert csv_text("plain " + text) == "plain " + text

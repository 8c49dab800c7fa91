"""Sizes as people write them."""

from __future__ import annotations

import pytest

from bench.errors import SpecError
from bench.units import gib, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * 2**30),
        ("24GB", 24 * 10**9),
        ("24000MiB", 24000 * 2**20),
        ("  1.5 gib ", 3 * 2**29),
        ("0.1MB", 100_000),
        ("2TiB", 2**41),
        ("1KiB", 1024),
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


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (24 * 2**30, "24 GiB"),
        (24 * 10**9, "22.35 GiB"),
        (2**29, "512 MiB"),
        (2**40, "1,024 GiB"),
        (10 * 2**30, "10 GiB"),
    ],
)
def test_texts(size: int, text: str) -> None:
    assert size_text(size) == text


def test_gib_has_two_decimals() -> None:
    assert gib(2**30 * 5 // 2) == "2.50"

"""Memory sizes with units: ``24GiB``, ``24GB``, ``24000MiB``."""

from __future__ import annotations

import re
from decimal import Decimal

from bench.errors import SpecError

UNITS = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_UNIT_OF = {name.lower(): size for name, size in UNITS.items()}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]+)", re.ASCII)


def parse_size(text: str, option: str) -> int:
    """Bytes of a size. Raises SpecError, which names ``option``, for anything but a positive number with a unit."""
    match = _SIZE.fullmatch(text.strip())
    unit = _UNIT_OF.get(match[2].lower()) if match else None
    size = int(Decimal(match[1]) * unit) if match and unit else 0
    if size <= 0:
        known = ", ".join(UNITS)
        raise SpecError(
            f"{option} {text!r}: write a number and a unit, e.g. {option} 24GiB "
            f"(units: {known}; a GPU sold as 24 GB has 24GiB)"
        )
    return size


def gib(size: int) -> str:
    """``26.31``: GiB with two decimals."""
    return f"{size / 2**30:,.2f}"


def size_text(size: int) -> str:
    """``24 GiB``, ``22.35 GiB``; below 1 GiB ``512 MiB``: at most two decimals."""
    number, unit = (size / 2**30, "GiB") if size >= 2**30 else (size / 2**20, "MiB")
    text = f"{number:,.2f}".rstrip("0").rstrip(".")
    return f"{text} {unit}"

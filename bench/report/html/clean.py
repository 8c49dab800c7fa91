"""Texts of others on the page: without characters that hide, reorder or break what stands there."""

from __future__ import annotations

import unicodedata
from typing import Any

from bench.format import clipped

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn")
LOG_LINES = 40
LOG_LINE = 400


def clean(value: Any, longest: int) -> str:
    """One line, cut; spaces as they are, what cannot be seen or turns the direction of a text left out."""
    text = str(value)[: 4 * longest]
    if text.isprintable():
        return clipped(text, longest)
    return clipped("".join(c for c in text if c.isprintable() or _kept(c)), longest)


def _kept(character: str) -> bool:
    return unicodedata.category(character) not in _HIDDEN


def log(tail: str) -> str:
    """The end of a log: its last lines, each cleaned and cut."""
    lines = tail.expandtabs(4).splitlines()[-LOG_LINES:]
    return "\n".join(clean(line, LOG_LINE) for line in lines)

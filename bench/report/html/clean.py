"""Texts of others on the page."""

from __future__ import annotations

from bench.format import visible

LOG_LINES = 40
LOG_LINE = 400


def log(tail: str) -> str:
    """The end of a log: its last lines, each cleaned and cut."""
    lines = tail.expandtabs(4).splitlines()[-LOG_LINES:]
    return "\n".join(visible(line, LOG_LINE) for line in lines)

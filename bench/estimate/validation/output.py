"""What a validation leaves behind: JSON lines, the environment first, and a page to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.files import write_atomic
from bench.units import UNITS

GIB, MIB = UNITS["GiB"], UNITS["MiB"]


def write(
    folder: Path, name: str, environment: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], page: str
) -> None:
    """``name.jsonl``: ``{"environment": ...}``, then a line per row; ``name.md``: the page."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"environment": environment}, *rows]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    write_atomic(folder / f"{name}.jsonl", text.encode())
    write_atomic(folder / f"{name}.md", page.encode())


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are aligned right."""
    lines = [headers, ["---", *["---:"] * (len(headers) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def gib(nbytes: int) -> str:
    """``26.31``."""
    return f"{nbytes / GIB:.2f}"


def mib(nbytes: int) -> str:
    """``1,245.3``."""
    return f"{nbytes / MIB:,.1f}"


def percent(error: float, digits: int = 1) -> str:
    """``+3.1 %``."""
    return f"{100 * error:+.{digits}f} %"


def made_with(environment: Mapping[str, Any]) -> str:
    """One sentence about the machine and the versions."""
    versions = environment["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)
    on = environment["cpu"] if environment["device"] == "cpu" else environment["device"]
    return f"Made with {packages} on {on}."

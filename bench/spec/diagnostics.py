"""Everything that is wrong with a spec, collected and shown on one screen: place, what is wrong, what to do."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bench.errors import SpecError
from bench.format import printable

WIDTH = 120
MAX_LINES = 20


@dataclass
class Problems:
    """Collects problems, each once."""

    found: dict[tuple[str, str], None] = field(default_factory=dict)
    """Mark and text."""

    def add(self, mark: str, path: tuple[str | int, ...] | str, message: str) -> None:
        """``mark``: ``file:line:col`` or the option; ``path``: dotted place in the spec."""
        where = path if isinstance(path, str) else dotted(path)
        self.found.setdefault((mark, f"{where}: {message}" if where else message))

    def add_of_variants(self, found: Mapping[str, Problems]) -> None:
        """Add what was found in each variant; what is wrong in some alone names them."""
        for mark, text in dict.fromkeys(key for own in found.values() for key in own.found):
            named = [name for name, own in found.items() if (mark, text) in own.found]
            where = "" if len(named) == len(found) else f" (in variant {', '.join(named)})"
            self.add(mark, "", f"{text}{where}")

    def __len__(self) -> int:
        return len(self.found)

    def raise_if_any(self) -> None:
        """Raises SpecError with all problems from top to bottom, cut to one screen."""
        if self.found:
            ordered = sorted(self.found, key=lambda found: _line_and_column(found[0]))
            raise SpecError(one_screen([f"{mark}: {text}" for mark, text in ordered]))


def _line_and_column(mark: str) -> tuple[int, int]:
    """For sorting: options, which have no line, come first."""
    place = re.search(r":(\d+):(\d+)$", mark)
    return (int(place[1]), int(place[2])) if place else (0, 0)


def one_screen(problems: list[str]) -> str:
    """All problems wrapped to 120 columns, at most 20 lines: the rest is counted."""
    lines: list[str] = []
    for shown, problem in enumerate(problems):
        wrapped = textwrap.wrap(printable(problem), WIDTH, subsequent_indent="    ", break_on_hyphens=False) or [""]
        if len(lines) + len(wrapped) > MAX_LINES and shown:
            lines.append(f"... and {len(problems) - shown} more")
            break
        lines += wrapped[:MAX_LINES]
    return "\n".join(lines)


def dotted(path: Iterable[str | int]) -> str:
    """``("matrix", "axes", 0)`` -> ``matrix.axes[0]``; a key that is no plain word is quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            word = step if step.isascii() and step.replace("_", "a").replace("-", "a").isalnum() else quoted(step)
            text += f".{word}" if text else word
    return text


def quoted(value: object) -> str:
    """A value as YAML would show it, clipped, so that a hostile or long one stays on its line."""
    if isinstance(value, str):
        text = repr(value) if value.isprintable() else ascii(value)
    else:
        text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:56] + "..." + text[-1]

"""Problems of a spec, collected and shown on one screen: location, problem and remedy."""

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
class Diagnostics:
    """Distinct diagnostics in the order in which they were added."""

    messages: dict[tuple[str, str], None] = field(default_factory=dict)
    """Location and text of each."""

    def add(self, location: str, path: tuple[str | int, ...] | str, message: str) -> None:
        """``location``: ``file:line:col`` or the option; ``path``: key in the spec."""
        where = path if isinstance(path, str) else dotted(path)
        self.messages.setdefault((location, f"{where}: {message}" if where else message))

    def add_of_variants(self, variants: Mapping[str, Diagnostics]) -> None:
        """Add the messages of all variants; a message of some of them names these."""
        for location, text in dict.fromkeys(key for each in variants.values() for key in each.messages):
            named = [name for name, each in variants.items() if (location, text) in each.messages]
            where = "" if len(named) == len(variants) else f" (in variant {', '.join(named)})"
            self.add(location, "", f"{text}{where}")

    def __len__(self) -> int:
        return len(self.messages)

    def raise_if_any(self) -> None:
        """Raises SpecError with all diagnostics from top to bottom, cut to one screen."""
        if self.messages:
            ordered = sorted(self.messages, key=lambda message: _line_and_column(message[0]))
            raise SpecError(one_screen([f"{location}: {text}" for location, text in ordered]))


def _line_and_column(location: str) -> tuple[int, int]:
    """Sort key; options, which have no line, come first."""
    numbers = re.search(r":(\d+):(\d+)$", location)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def one_screen(diagnostics: list[str]) -> str:
    """Diagnostics wrapped to 120 columns and cut to 20 lines; the others are counted."""
    lines: list[str] = []
    for shown, diagnostic in enumerate(diagnostics):
        wrapped = textwrap.wrap(printable(diagnostic), WIDTH, subsequent_indent="    ", break_on_hyphens=False) or [""]
        if len(lines) + len(wrapped) > MAX_LINES and shown:
            lines.append(f"... and {len(diagnostics) - shown} more")
            break
        lines += wrapped[:MAX_LINES]
    return "\n".join(lines)


def dotted(path: Iterable[str | int]) -> str:
    """``("matrix", "axes", 0)`` -> ``matrix.axes[0]``; a key that is not a plain word is quoted."""
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

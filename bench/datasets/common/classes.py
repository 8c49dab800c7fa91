"""What names of classes give away: a missing value that became a text, one class under two names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from bench.datasets.common.notes import Notes
from bench.plugins.contracts import Example

MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "undefined"))
"""How programs write a missing value as a text; in lower case."""


def note_classes(splits: Iterable[Sequence[Example]], notes: Notes) -> None:
    """Note classes that look like missing values, and classes that differ only in how they are written."""
    counts = Counter(example.answer for split in splits for example in split)
    missing = sorted(name for name in counts if name.strip().lower() in MISSING)
    if missing:
        notes.add(f"classes that look like missing values count as classes: {_told(missing, counts)}")
    same: dict[str, list[str]] = {}
    for name in sorted(counts):
        same.setdefault(_key(name), []).append(name)
    for names in same.values():
        if len(names) > 1:
            notes.add(
                "names that differ only in case, spaces or how a number is written are classes of their own: "
                f"{_told(names, counts)}"
            )


def _told(names: Sequence[str], counts: Counter[str]) -> str:
    shown = [f"{name!r:.80} ({counts[name]:,} times)" for name in names[:5]]
    return ", ".join(shown) + (f", and {len(names) - 5:,} more" if len(names) > 5 else "")


def _key(name: str) -> str:
    with suppress(ValueError):
        return str(float(name))
    return " ".join(name.replace("_", " ").split()).casefold()

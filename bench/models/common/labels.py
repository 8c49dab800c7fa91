"""Which row of a classifier's head is which class of the data: by the names that both give."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.plugins.contracts import TaskFacts

_SHOWN = 8
_KIND = re.compile(r"^(?:label|class)[\W_]+", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![^\W_])-?\d+|\d+")
_SHORTEST = 3
"""Letters of an abbreviation: ``neg`` for ``NEGATIVE``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What the names say."""

    order: tuple[int, ...] | None
    """Row of each label; null where names tell nothing."""
    problem: str = ""
    """Why the rows of a head that brings its weights cannot be used; empty where they can."""


def match(rows: Sequence[str], task: TaskFacts) -> Match:
    """The rows of a head, by their names, for the labels of the task. All labels must have a row, each its own; a head
    may have further rows. ``task.labels`` of a spec is the order of the rows where names say nothing else.
    """
    listed = task.labels_from == "spec" and len(rows) == len(task.labels)
    unnamed = all(row == f"LABEL_{i}" for i, row in enumerate(rows))  # as transformers calls what nobody named
    if listed and unnamed:
        return Match(order=tuple(range(len(rows))))
    order = _order(rows, task.labels)
    if order is not None and (len(rows) == len(task.labels) or not unnamed):
        return Match(order=order)
    if not listed:
        return Match(order=None, problem=_unknown(rows, task.labels, unnamed=unnamed))
    moved = [(i, rows.index(row)) for i, name in enumerate(task.labels) if (row := _same(name, rows)) is not None]
    if all(here == there for here, there in moved):
        return Match(order=tuple(range(len(rows))))
    here, there = next((here, there) for here, there in moved if here != there)
    return Match(
        order=None,
        problem=f"task.labels has {task.labels[here]!r} in place {here}, but the head of the weights has it in row "
        f"{there}: give the names in the order of its rows, {_listed(rows)}",
    )


def _unknown(rows: Sequence[str], labels: Sequence[str], *, unnamed: bool) -> str:
    theirs = "names none of its rows" if unnamed else f"has the rows {_listed(rows)}"
    return (
        f"the head of the weights {theirs}, and the data have the classes {_listed(labels)}: which is which cannot be "
        "told. Name the data's classes in the order of the rows in task.labels, e.g. "
        f"`task.labels: [{', '.join(labels[:_SHOWN])}{', ...' if len(labels) > _SHOWN else ''}]`; a head that was "
        "trained for other classes takes them in any order"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", ... {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _order(rows: Sequence[str], labels: Sequence[str]) -> tuple[int, ...] | None:
    """By the strictest way of reading names in which each label is one row."""
    for keys in (_exact, _spelled, _synonyms):
        if (found := _pair(rows, labels, keys)) is not None:
            return found
    if len(rows) != len(labels):
        return None
    by_number = _pair(rows, labels, _number)
    return _abbreviated(rows, labels) if by_number is None else by_number


def _pair(rows: Sequence[str], labels: Sequence[str], keys: Callable[[str], set[str]]) -> tuple[int, ...] | None:
    """Row of each label; null unless every label has a key in common with one row, and no row with two labels."""
    named: defaultdict[str, set[int]] = defaultdict(set)
    for i, row in enumerate(rows):
        for key in keys(row):
            named[key].add(i)
    return _distinct([set().union(*(named[key] for key in keys(label))) for label in labels])


def _distinct(fitting: Sequence[set[int]]) -> tuple[int, ...] | None:
    found = [next(iter(each)) for each in fitting if len(each) == 1]
    return tuple(found) if len(set(found)) == len(fitting) else None


def _same(name: str, rows: Sequence[str]) -> str | None:
    return next((row for row in rows if _spelled(row) & _spelled(name)), None)


def _exact(name: str) -> set[str]:
    return {unicodedata.normalize("NFKC", name).casefold().strip()}


def _spelled(name: str) -> set[str]:
    """Without what stands between words: ``not_entailment``, ``Not entailment``, ``LABEL_NOT-ENTAILMENT``."""
    squeezed = {"".join(filter(str.isalnum, text)) for own in _exact(name) for text in (own, _KIND.sub("", own))}
    return _exact(name) | squeezed - {""}


def _synonyms(name: str) -> set[str]:
    """``tench, Tinca tinca`` has two names."""
    return _spelled(name).union(*(_spelled(part) for part in re.split(r"[,;|]", name)))


def _number(name: str) -> set[str]:
    """``LABEL_3``, ``3`` and ``class 3``; ``4 stars`` and ``4``."""
    found = _NUMBER.findall(name)
    return {str(int(found[0]))} if len(found) == 1 else set()


def _abbreviated(rows: Sequence[str], labels: Sequence[str]) -> tuple[int, ...] | None:
    """``neg`` and ``NEGATIVE``: one begins with the other."""
    ours, theirs = ([min(_exact(name)) for name in names] for names in (labels, rows))
    return _distinct(
        [
            {i for i, row in enumerate(theirs) if min(len(row), len(own)) >= _SHORTEST and _begins(row, own)}
            for own in ours
        ]
    )


def _begins(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)

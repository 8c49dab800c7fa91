"""Rows of a classifier's head matched to classes of the data, by name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.plugins.contracts import TaskFacts

_LISTED = 8
# A prefix of a class name, and the numbers in it; a minus sign belongs to a number at the start of a word only.
_PREFIX = re.compile(r"^(?:label|class)[\W_]+", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![^\W_])-?\d+|\d+")
# Letters of an abbreviation: ``neg`` for ``NEGATIVE``.
_MIN_ABBREVIATION = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Rows of a head for the labels of a task."""

    order: tuple[int, ...] | None
    """Row of each label; null without a match."""
    problem: str = ""
    """Reason against a trained head; empty with a match."""


def match(rows: Sequence[str], task: TaskFacts) -> Match:
    """Match the named rows of a head to the labels of the task.

    Each label needs a row of its own; a head may have more rows. ``task.labels`` of a spec gives the order of rows
    that have no names, or other names.
    """
    in_row_order = task.labels_from == "spec" and len(rows) == len(task.labels)
    unnamed = all(row == f"LABEL_{i}" for i, row in enumerate(rows))  # transformers' names where none are given
    if in_row_order and unnamed:
        return Match(order=tuple(range(len(rows))))
    order = _order(rows, task.labels)
    if order is not None and (len(rows) == len(task.labels) or not unnamed):
        return Match(order=order)
    if not in_row_order:
        return Match(order=None, problem=_unmatched(rows, task.labels, unnamed=unnamed))
    # The spec's order decides, unless a name shows that it is another order than the head's.
    for i, label in enumerate(task.labels):
        row = next((row for row in rows if _spelling(row) & _spelling(label)), None)
        if row is not None and rows.index(row) != i:
            return Match(
                order=None,
                problem=f"task.labels has {label!r} in place {i}, but the head of the weights has it in row "
                f"{rows.index(row)}: give the names in the order of its rows, {_listed(rows)}",
            )
    return Match(order=tuple(range(len(rows))))


def _unmatched(rows: Sequence[str], labels: Sequence[str], *, unnamed: bool) -> str:
    names = "names none of its rows" if unnamed else f"has the rows {_listed(rows)}"
    return (
        f"the head of the weights {names}, and the data have the classes {_listed(labels)}: their names do not match. "
        "Name the data's classes in the order of the rows in task.labels, e.g. "
        f"`task.labels: [{', '.join(labels[:_LISTED])}{', ...' if len(labels) > _LISTED else ''}]`; a head that was "
        "trained for other classes takes them in any order"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f", ... {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _order(rows: Sequence[str], labels: Sequence[str]) -> tuple[int, ...] | None:
    """Row of each label, under the strictest comparison of names that gives each label one row."""
    for keys in (_exact, _spelling, _synonyms):
        if (order := _pair(rows, labels, keys)) is not None:
            return order
    if len(rows) != len(labels):
        return None
    if (by_number := _pair(rows, labels, _number)) is not None:
        return by_number
    row_names, label_names = ([min(_exact(name)) for name in names] for names in (rows, labels))
    return _distinct([{i for i, row in enumerate(row_names) if _abbreviates(row, label)} for label in label_names])


def _pair(rows: Sequence[str], labels: Sequence[str], keys: Callable[[str], set[str]]) -> tuple[int, ...] | None:
    rows_of = defaultdict(set)
    for i, row in enumerate(rows):
        for key in keys(row):
            rows_of[key].add(i)
    return _distinct([set().union(*(rows_of[key] for key in keys(label))) for label in labels])


def _distinct(candidates: Sequence[set[int]]) -> tuple[int, ...] | None:
    """Row of each label; null unless each label has one candidate, a different one."""
    single = [next(iter(rows)) for rows in candidates if len(rows) == 1]
    return tuple(single) if len(set(single)) == len(candidates) else None


def _exact(name: str) -> set[str]:
    return {unicodedata.normalize("NFKC", name).casefold().strip()}


def _spelling(name: str) -> set[str]:
    """The name, and its letters and digits alone: ``not_entailment``, ``LABEL_NOT-ENTAILMENT`` have the same."""
    (exact,) = _exact(name)
    squeezed = {"".join(filter(str.isalnum, text)) for text in (exact, _PREFIX.sub("", exact))}
    return {exact} | squeezed - {""}


def _synonyms(name: str) -> set[str]:
    """Spellings of every synonym in ``tench, Tinca tinca``."""
    return _spelling(name).union(*(_spelling(part) for part in re.split(r"[,;|]", name)))


def _number(name: str) -> set[str]:
    """The only number of a name: 3 of ``LABEL_3`` and ``class 3``."""
    numbers = _NUMBER.findall(name)
    return {str(int(numbers[0]))} if len(numbers) == 1 else set()


def _abbreviates(one: str, other: str) -> bool:
    return min(len(one), len(other)) >= _MIN_ABBREVIATION and (one.startswith(other) or other.startswith(one))

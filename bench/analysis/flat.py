"""Records as rows of plain values, under the columns of ``bench.records.columns``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bench.errors import SpecError
from bench.records.columns import LEFT_OUT, STALE, Column, columns, describe
from bench.records.record import CellRecord
from bench.registry import did_you_mean
from bench.spec.diagnostics import dotted

Value = str | int | float | bool | None
SETTINGS = ("model", "task", "data", "train", "evaluate", "methods", "run")
"""Of ``settings``; the rest of it are columns of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A column of one export."""

    name: str
    kind: str
    """``text``, ``integer``, ``number`` or ``boolean``: of all its values."""
    column: Column
    """What documents it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flat:
    """All records, one row each."""

    fields: list[Field]
    values: list[list[Value]]
    """Column by column, in the order of ``fields``; each in the order of the records."""


def flatten(
    records: Sequence[CellRecord], wanted: Sequence[str] = (), stale: Sequence[str | None] | None = None
) -> Flat:
    """One row per record in their order. ``wanted``: names of columns, or globs; without it all. ``stale``: of each
    record why it is not that of its cell as it is now; null if it is.

    Columns: those every export has, null or not, and in their places those that the records' keys make, if any is not
    null. Raises SpecError for a name that no column has.
    """
    reasons = stale if stale is not None else [None] * len(records)
    contents = ({**_content(record), STALE.name: why} for record, why in zip(records, reasons, strict=True))
    rows = [dict(_leaves(content)) for content in contents]
    names = _selected(_names(rows), wanted)
    fields, values = [], []
    for name, column in names.items():
        field, found = _field(name, column, [row.get(name) for row in rows])
        fields.append(field)
        values.append(found)
    return Flat(fields=fields, values=values)


def _content(record: CellRecord) -> dict[str, Any]:
    """The record with its scores where all programs look for them, whichever version wrote it."""
    content = record.model_dump(mode="json", by_alias=True, exclude=set(LEFT_OUT))
    known = record.scores or (record.accuracy.scores() if record.accuracy else {})
    content["scores"] = {name: score.model_dump() for name, score in known.items()}
    content["baselines"] = {
        baseline: {name: score.model_dump() for name, score in scores.items()}
        for baseline, scores in record.baseline_scores().items()
    }
    content["settings"] = {key: record.settings[key] for key in SETTINGS if key in record.settings}
    return content


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted place -> what is no mapping."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, (*path, str(key)))
    elif value is not None:
        yield dotted(path), value


def _names(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """In the order of the schema; those of one pattern as they first appear."""
    found: dict[str, dict[str, Column]] = {column.name: {} for column in columns()}
    for column in columns():
        if column.fixed and not column.name.startswith("environment."):
            found[column.name][column.name] = column
    for row in rows:
        for name in row:
            column = describe(name)
            found[column.name].setdefault(name, column)
    return {name: column for names in found.values() for name, column in names.items()}


def _selected(names: dict[str, Column], wanted: Sequence[str]) -> dict[str, Column]:
    if not wanted:
        return names
    chosen: dict[str, Column] = {}
    for word in wanted:
        matching = {name: column for name, column in names.items() if name == word or fnmatchcase(name, word)}
        if not matching:
            raise SpecError(f"--columns {word}: no such column{did_you_mean(word, list(names))}; see docs/columns.md")
        chosen |= {name: column for name, column in matching.items() if name not in chosen}
    return chosen


def _field(name: str, column: Column, raw: Sequence[Any]) -> tuple[Field, list[Value]]:
    kind = column.kind if column.kind not in ("any", "json") else _common(raw)
    return Field(name=name, kind=kind, column=column), [_as(kind, value) for value in raw]


def _common(raw: Sequence[Any]) -> str:
    """The narrowest kind of all values that are not null."""
    kinds = {_kind_of(value) for value in raw if value is not None}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else "text"


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) < 2**63 else "text"
    return "number" if isinstance(value, float) else "text"


def _as(kind: str, value: Any) -> Value:
    """A value of that kind; in a column of texts, what is none is its JSON. Null for one that cannot be of the kind."""
    if value is None or (kind == "text" and isinstance(value, str)):
        return None if value is None else str(value)
    if kind == "text":
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    fitting = ("integer", "number") if kind == "number" else (kind,)
    if _kind_of(value) not in fitting:
        return None
    converted: Value = float(value) if kind == "number" else value
    return converted

"""Any view of a spec's table: which columns, rows in groups, rows and columns exchanged, significant digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import format, metrics
from bench.analysis.predictions import ExampleScores
from bench.errors import SpecError
from bench.registry import did_you_mean
from bench.report import build_table
from bench.report.model import Entry, Table, TableRow
from bench.spec.sections import Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.records.record import CellRecord
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

MAX_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the user asked for."""

    columns: Sequence[str] = ()
    """Parts, axes, ``seed``, ``status`` and metrics; empty: as the spec says."""
    group_by: str | None = None
    """A part or an axis."""
    transpose: bool = False
    digits: int | None = None
    """Significant ones of every metric; null: as the metric prints."""
    published: bool = False
    """Whether published values stand in brackets."""


@dataclass(frozen=True, slots=True)
class Text:
    """One place of a grid."""

    words: str
    bold: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Rows under one heading; without groups there is one section without a heading."""

    heading: str
    rows: list[list[Text]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What the renderers print; texts not escaped yet."""

    of: Table
    """What it is a view of."""
    headers: list[str]
    numeric: list[bool]
    """Of the columns: whether numbers stand there."""
    sections: list[Section]
    notes: list[str]


def view(
    spec: Spec,
    scale: str,
    cells: Sequence[Cell],
    records: Mapping[str, CellRecord],
    wanted: Wanted,
    examples: ExampleScores | None = None,
    stale: Mapping[str, str] | None = None,
) -> Grid:
    """The grid of a spec's cells. Raises SpecError for a column or group that there is none of."""
    if wanted.digits is not None and not 1 <= wanted.digits <= MAX_DIGITS:
        raise SpecError(f"--digits {wanted.digits}: write how many significant digits, 1 to {MAX_DIGITS}")
    table = build_table(_with_columns(spec, wanted), scale, cells, records, examples, stale)
    grid = _transposed(table, wanted) if wanted.transpose else _upright(table, wanted)
    return replace(grid, notes=[*(["In brackets: published."] if _shows_published(table, wanted) else []), *grid.notes])


def _with_columns(spec: Spec, wanted: Wanted) -> Spec:
    """The spec with the columns asked for, under its own headers; the group's column first."""
    if not wanted.published:
        spec = spec.model_copy(update={"published": None})
    if not wanted.columns and wanted.group_by is None:
        return spec
    headers = {column.value: column for column in spec.columns}
    names = list(wanted.columns or headers)
    if not names and wanted.group_by:
        return spec  # it has the usual columns, parts and axes among them
    if wanted.group_by is not None:
        if wanted.group_by in metrics.names():
            raise SpecError(f"--group-by {wanted.group_by}: is a metric; name a part or an axis")
        names = [wanted.group_by, *(name for name in names if name != wanted.group_by)]
    return spec.model_copy(update={"columns": [headers.get(name) or Column(value=name) for name in names]})


def _upright(table: Table, wanted: Wanted) -> Grid:
    group = _group_index(table, wanted)
    kept = [index for index in range(len(table.columns)) if index != group]
    nameless = all(table.columns[index].metric for index in kept)  # the group's was the only column of labels
    sections: dict[str, list[list[Text]]] = {}
    for row in table.rows:
        heading = "" if group is None else _heading(table, row, group)
        texts = _texts(table, row, kept, wanted)
        sections.setdefault(heading, []).append([Text(row.label), *texts] if nameless else texts)
    return Grid(
        of=table,
        headers=["Cell"] * nameless + [table.columns[i].header for i in kept] + ["Status"] * table.with_status,
        numeric=[False] * nameless + [table.columns[i].metric is not None for i in kept] + [False] * table.with_status,
        sections=[Section(heading=heading, rows=rows) for heading, rows in sections.items()],
        notes=list(table.footnotes),
    )


def _transposed(table: Table, wanted: Wanted) -> Grid:
    """A column per cell, those of a group side by side; the first column of the table is the header."""
    group = _group_index(table, wanted)
    places = list(dict.fromkeys(_heading(table, row, group) for row in table.rows)) if group is not None else [""]
    rows = [row for place in places for row in table.rows if group is None or _heading(table, row, group) == place]
    indices = list(range(len(table.columns)))
    columns = [_texts(table, row, indices, wanted) for row in rows]
    headers = [*(column.header for column in table.columns), *(["Status"] * table.with_status)]
    lines = [[Text(header), *(column[i] for column in columns)] for i, header in enumerate(headers)]
    return Grid(
        of=table,
        headers=[place.words for place in lines[0]],
        numeric=[False, *([True] * len(columns))],
        sections=[Section(heading="", rows=lines[1:])],
        notes=list(table.footnotes),
    )


def _group_index(table: Table, wanted: Wanted) -> int | None:
    if wanted.group_by is None:
        return None
    labels = [column.value for column in table.columns if column.metric is None]
    if wanted.group_by not in labels:
        raise SpecError(f"--group-by {wanted.group_by}: no such part or axis{did_you_mean(wanted.group_by, labels)}")
    return next(index for index, column in enumerate(table.columns) if column.value == wanted.group_by)


def _heading(table: Table, row: TableRow, group: int) -> str:
    return "Baselines" if row.baseline else f"{table.columns[group].header}: {row.entries[group].text}"


def _texts(table: Table, row: TableRow, indices: Sequence[int], wanted: Wanted) -> list[Text]:
    """Of one row; a baseline's name stands in the first place."""
    shown = [_text(row.entries[index], wanted, numeric=table.columns[index].metric is not None) for index in indices]
    if row.baseline and table.columns[indices[0]].metric is None:
        shown[0] = Text(row.label)
    return shown + [Text(row.status or ("" if row.baseline else "ok"))] * table.with_status


def _text(entry: Entry, wanted: Wanted, *, numeric: bool) -> Text:
    if not numeric:
        return Text(entry.text)
    known = entry.predicted if entry.shows_prediction else entry.value
    if wanted.digits is not None and known is not None:
        entry = _rounded(entry, known, wanted.digits)
    published = wanted.published and entry.published is not None
    return Text(f"{entry.text} ({entry.published_text})" if published else entry.text, entry.best)


def _rounded(entry: Entry, known: float, digits: int) -> Entry:
    """With so many significant digits; deviation and published value get as many decimals."""
    decimals = digits - 1 - (math.floor(math.log10(abs(known))) if known else 0)
    if known and abs(round(known, decimals)) >= 10.0 ** (digits - decimals):  # 9.996 has become 10.00
        decimals -= 1
    shown, published = round(known, decimals), entry.published
    words = format.spread(shown, entry.std if entry.std is None else round(entry.std, decimals), max(decimals, 0))
    return replace(
        entry,
        text=format.predicted(words) if entry.shows_prediction else words,
        published=None if published is None else round(published, decimals),
        digits=max(decimals, 0),
    )


def _shows_published(table: Table, wanted: Wanted) -> bool:
    return wanted.published and any(column.published for column in table.columns)

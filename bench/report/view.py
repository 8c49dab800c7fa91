"""Views of a spec's table: chosen columns, grouped rows, transposition, significant digits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import format, metrics
from bench.analysis.predictions import ExampleScores
from bench.errors import SpecError
from bench.registry import did_you_mean
from bench.report import build_table, latex, markdown
from bench.report.table import Table, TableRow, Value
from bench.spec.sections import Column

if TYPE_CHECKING:
    from bench.records.record import CellRecord
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

MAX_DIGITS = 12
Text = tuple[str, bool]
"""A text, and whether it is bold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Options of a view."""

    columns: Sequence[str] = ()
    """Parts, axes, ``seed``, ``status`` and metrics; empty: the columns of the spec."""
    group_by: str | None = None
    """A part or an axis."""
    transpose: bool = False
    digits: int | None = None
    """Significant digits of every metric; null: the digits of the metric."""
    published: bool = False
    """Whether to add published values in brackets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Texts of a view, not escaped yet."""

    of: Table
    """The whole table."""
    headers: list[str]
    numeric: list[bool]
    """Whether each column holds numbers."""
    sections: dict[str, list[list[Text]]]
    """Rows by heading; without groups one section with an empty heading."""
    notes: list[str]


def view(
    spec: Spec,
    scale: str,
    cells: Sequence[Cell],
    records: Mapping[str, CellRecord],
    wanted: Wanted,
    examples: ExampleScores | None = None,
    stale: Mapping[str, str] | None = None,
) -> View:
    """The view of a spec's table. Raises SpecError for an unknown column or group."""
    if wanted.digits is not None and not 1 <= wanted.digits <= MAX_DIGITS:
        raise SpecError(f"--digits {wanted.digits}: write how many significant digits, 1 to {MAX_DIGITS}")
    table = build_table(_with_columns(spec, wanted), scale, cells, records, examples, stale)
    group = _group_index(table, wanted)
    notes = ["In brackets: published."] * (wanted.published and table.with_published) + list(table.footnotes)
    return _transposed(table, wanted, group, notes) if wanted.transpose else _upright(table, wanted, group, notes)


def _with_columns(spec: Spec, wanted: Wanted) -> Spec:
    """The spec with the wanted columns, under the spec's headers; the group's column first."""
    if not wanted.published:
        spec = spec.model_copy(update={"published": None})
    headers = {column.value: column for column in spec.columns}
    names = list(wanted.columns or headers)
    if not names or not (wanted.columns or wanted.group_by):
        return spec  # a spec without columns gets the usual ones, with parts and axes
    if wanted.group_by is not None:
        if wanted.group_by in metrics.names():
            raise SpecError(f"--group-by {wanted.group_by}: is a metric; name a part or an axis")
        names = [wanted.group_by, *(name for name in names if name != wanted.group_by)]
    return spec.model_copy(update={"columns": [headers.get(name) or Column(value=name) for name in names]})


def _group_index(table: Table, wanted: Wanted) -> int | None:
    if wanted.group_by is None:
        return None
    labels = {column.value: index for index, column in enumerate(table.columns) if column.metric is None}
    if wanted.group_by not in labels:
        raise SpecError(
            f"--group-by {wanted.group_by}: no such part or axis{did_you_mean(wanted.group_by, list(labels))}"
        )
    return labels[wanted.group_by]


def _upright(table: Table, wanted: Wanted, group: int | None, notes: list[str]) -> View:
    kept = [index for index in range(len(table.columns)) if index != group]
    nameless = all(table.columns[index].metric for index in kept)  # the group's column was the only one of labels
    sections: dict[str, list[list[Text]]] = {}
    for row in table.rows:
        texts = _texts(table, row, kept, wanted)
        sections.setdefault(_heading(table, row, group), []).append([(row.label, False)] * nameless + texts)
    status = table.with_status
    return View(
        of=table,
        headers=["Cell"] * nameless + [table.columns[i].header for i in kept] + ["Status"] * status,
        numeric=[False] * nameless + [table.columns[i].metric is not None for i in kept] + [False] * status,
        sections=sections,
        notes=notes,
    )


def _transposed(table: Table, wanted: Wanted, group: int | None, notes: list[str]) -> View:
    """A column per cell, sorted by group; the first column of the table becomes the header."""
    headings = list(dict.fromkeys(_heading(table, row, group) for row in table.rows))
    rows = sorted(table.rows, key=lambda row: headings.index(_heading(table, row, group)))
    columns = [_texts(table, row, range(len(table.columns)), wanted) for row in rows]
    headers = [*(column.header for column in table.columns), *(["Status"] * table.with_status)]
    first, *lines = [[(header, False), *(column[i] for column in columns)] for i, header in enumerate(headers)]
    return View(
        of=table,
        headers=[words for words, _ in first],
        numeric=[False, *([True] * len(columns))],
        sections={"": lines},
        notes=notes,
    )


def _heading(table: Table, row: TableRow, group: int | None) -> str:
    if group is None:
        return ""
    return "Baselines" if row.baseline else f"{table.columns[group].header}: {row.values[group].text}"


def _texts(table: Table, row: TableRow, indices: Sequence[int], wanted: Wanted) -> list[Text]:
    """Texts of a row; the name of a baseline is in the first column."""
    texts = [
        _text(row.values[index], wanted) if table.columns[index].metric else (row.values[index].text, False)
        for index in indices
    ]
    if row.baseline and table.columns[indices[0]].metric is None:
        texts[0] = (row.label, False)
    return texts + [(row.status_text, False)] * table.with_status


def _text(value: Value, wanted: Wanted) -> Text:
    known = value.predicted if value.shows_prediction else value.value
    if wanted.digits is not None and known is not None:
        value = _rounded(value, known, wanted.digits)
    bracketed = wanted.published and value.published is not None
    return f"{value.text} ({value.published_text})" if bracketed else value.text, value.best


def _rounded(value: Value, known: float, digits: int) -> Value:
    """The value with so many significant digits; deviation and published value get the same decimals."""
    decimals = digits - 1 - (math.floor(math.log10(abs(known))) if known else 0)
    if known and abs(round(known, decimals)) >= 10.0 ** (digits - decimals):  # 9.996 has become 10.00
        decimals -= 1
    std = value.std if value.std is None else round(value.std, decimals)
    words = format.spread(round(known, decimals), std, max(decimals, 0))
    return replace(
        value,
        text=format.predicted(words) if value.shows_prediction else words,
        published=None if value.published is None else round(value.published, decimals),
        digits=max(decimals, 0),
    )


def markdown_text(grid: View) -> str:
    """GitHub-flavoured Markdown; the heading of a group is a row."""

    def text(words: str, bold: bool) -> str:
        return f"**{markdown.escape(words)}**" if bold else markdown.escape(words)

    rows: list[list[str]] = []
    for heading, lines in grid.sections.items():
        if heading:
            rows.append([f"*{markdown.escape(heading)}*", *[""] * (len(grid.headers) - 1)])
        rows += [[text(*cell) for cell in line] for line in lines]
    headers = list(zip(map(markdown.escape, grid.headers), grid.numeric, strict=True))
    return markdown.page(grid.of, headers, rows, grid.notes)


def latex_text(grid: View) -> str:
    """A ``table`` with booktabs rules; a group's heading spans it."""

    def text(words: str, bold: bool) -> str:
        return rf"\textbf{{{latex.escape(words)}}}" if bold else latex.escape(words)

    body = [latex.line(list(map(latex.escape, grid.headers)))]
    for heading, lines in grid.sections.items():
        body.append(r"\midrule")
        if heading:
            spanning = rf"\textit{{{latex.escape(heading)}}}"
            body.append(rf"\multicolumn{{{len(grid.headers)}}}{{@{{}}l@{{}}}}{{{spanning}}} \\")
        body += [latex.line([text(*cell) for cell in line]) for line in lines]
    align = "".join("r" if numeric else "l" for numeric in grid.numeric)
    return latex.framed(grid.of, packages=("booktabs", "graphicx"), align=align, body=body, notes=grid.notes)

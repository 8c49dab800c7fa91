"""The table as CSV, for programs and spreadsheets: raw values, one row per line.

A prediction has a column of its own, ``<metric> predicted``; the metric's column holds what was measured, or nothing.
"""

from __future__ import annotations

import csv
import io

from bench.report import text
from bench.report.model import Entry, Row, Table, TableColumn

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "|", "%")
"""First characters that make a spreadsheet run a text cell."""


def cell(value: object) -> str:
    """Numbers as numbers, null as nothing, text as text even to a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.8g}" if isinstance(value, float) else str(value)
    shown = text.plain(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def render(table: Table) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    with_std = {c.value for i, c in enumerate(table.columns) if any(r.entries[i].std is not None for r in table.rows)}
    with_predicted = {
        c.value for i, c in enumerate(table.columns) if any(r.entries[i].predicted is not None for r in table.rows)
    }
    header = ["spec", "scale", "row"]
    for column in table.columns:
        header += _header(column, column.value in with_std, column.value in with_predicted)
    writer.writerow([cell(name) for name in [*header, "seeds", "status", "note"]])
    for row in table.rows:
        values: list[object] = [table.spec, table.tag or table.scale, row.label]
        for column, entry in zip(table.columns, row.entries, strict=True):
            values += _values(column, entry, column.value in with_std, column.value in with_predicted)
        writer.writerow([cell(value) for value in [*values, *_ending(row)]])
    return out.getvalue()


def _header(column: TableColumn, with_std: bool, with_predicted: bool) -> list[str]:
    if column.metric is None:
        return [column.header]
    kinds = ["std"] * with_std + ["predicted"] * with_predicted + ["published", "deviation"] * column.published
    kinds += ["correct", "n"] if column.metric.score else []
    return [column.header, *(f"{column.header} {kind}" for kind in kinds)]


def _values(column: TableColumn, entry: Entry, with_std: bool, with_predicted: bool) -> list[object]:
    if column.metric is None:
        return [entry.value if entry.value is not None else entry.text]
    values: list[object] = [entry.value]
    values += (
        [entry.std] * with_std
        + [entry.predicted] * with_predicted
        + [entry.published, entry.deviation] * column.published
    )
    return values + ([entry.correct, entry.n] if column.metric.score else [])


def _ending(row: Row) -> list[object]:
    if row.baseline:
        return [None, "baseline", None]
    note = None if row.implied is None else f"published Global is not the weighted mean (implied {row.implied:.2f})"
    return [row.seeds, row.status or "ok", note]

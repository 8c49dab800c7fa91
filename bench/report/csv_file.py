"""The table as CSV, for programs and spreadsheets: raw values, one row per line.

A prediction has a column of its own, ``<metric> predicted``; the metric's column holds what was measured, or nothing.
``low`` and ``high`` are the bounds of its interval at 95 %, ``std`` its standard deviation over the seeds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from bench import format
from bench.report.model import Entry, Table, TableColumn, TableRow


def cell(value: object) -> str:
    """Numbers as numbers, null as nothing, text as text even to a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.8g}" if isinstance(value, float) else str(value)
    return format.csv_text(format.one_line(value))


def render(table: Table) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    kinds = [_kinds(column, [row.entries[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    header = ["spec", "scale", "row"]
    for column, shown in zip(table.columns, kinds, strict=True):
        header += [column.header, *(f"{column.header} {kind}" for kind in shown)]
    writer.writerow([cell(name) for name in [*header, "seeds", "status", "note"]])
    for row in table.rows:
        values: list[object] = [table.spec, table.tag or table.scale, row.label]
        for column, entry, shown in zip(table.columns, row.entries, kinds, strict=True):
            values += [_value(column, entry), *(getattr(entry, kind) for kind in shown)]
        writer.writerow([cell(value) for value in [*values, *_ending(row)]])
    return out.getvalue()


def _kinds(column: TableColumn, entries: Sequence[Entry]) -> list[str]:
    """Fields of an entry that have a column of their own beside the metric's: where any row has them."""
    if column.metric is None:
        return []
    kinds = [kind for kind in ("std", "low", "high", "predicted") if any(getattr(e, kind) is not None for e in entries)]
    kinds += ["published", "deviation"] * column.published
    return kinds + (["correct", "n"] if column.metric.score else [])


def _value(column: TableColumn, entry: Entry) -> object:
    return entry.text if column.metric is None and entry.value is None else entry.value


def _ending(row: TableRow) -> list[object]:
    if row.baseline:
        return [None, "baseline", None]
    implied = "" if row.implied is None else f"published Global is not the weighted mean (implied {row.implied:.2f})"
    note = "; ".join(each for each in (row.warning, implied) if each)
    return [row.seeds, row.status or "ok", note or None]

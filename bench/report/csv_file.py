"""The table as CSV, for programs and spreadsheets: raw values, one row per line.

Predictions are in separate columns, ``<metric> predicted``; the metric's column holds what was measured, or nothing.
``low`` and ``high`` are the bounds of its 95 % CI, ``std`` its standard deviation over the seeds.
"""

from __future__ import annotations

import csv
import io

from bench.format import csv_text, one_line
from bench.report.table import Table, TableRow


def cell(value: object) -> str:
    """Text of a value: empty for null, and never a formula to a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.8g}" if isinstance(value, float) else str(value)
    return csv_text(one_line(value))


def render(table: Table) -> str:
    fields = [_fields(table, index) for index in range(len(table.columns))]
    header = ["spec", "scale", "row"]
    for column, names in zip(table.columns, fields, strict=True):
        header += [column.header, *(f"{column.header} {name}" for name in names)]
    lines: list[list[object]] = [[*header, "seeds", "status", "note"]]
    for row in table.rows:
        line: list[object] = [table.spec, table.tag or table.scale, row.label]
        for column, value, names in zip(table.columns, row.values, fields, strict=True):
            raw = value.text if column.metric is None and value.value is None else value.value
            line += [raw, *(getattr(value, name) for name in names)]
        lines.append([*line, *_ending(row)])
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([cell(value) for value in line] for line in lines)
    return out.getvalue()


def _fields(table: Table, index: int) -> list[str]:
    """Fields of the values of a column, beside the value itself, that any row has."""
    column, values = table.columns[index], [row.values[index] for row in table.rows]
    if column.metric is None:
        return []
    names = [name for name in ("std", "low", "high", "predicted") if any(getattr(v, name) is not None for v in values)]
    names += ["published", "deviation"] if column.published else []
    return names + (["correct", "n"] if column.metric.score else [])


def _ending(row: TableRow) -> list[object]:
    if row.baseline:
        return [None, "baseline", None]
    implied = "" if row.implied is None else f"published Global is not the weighted mean (implied {row.implied:.2f})"
    return [row.seeds, row.status_text, "; ".join(filter(None, [row.warning, implied])) or None]

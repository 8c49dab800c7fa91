"""The table as GitHub-flavoured Markdown: measured, published and deviation side by side."""

from __future__ import annotations

import re

from bench.format import DASH
from bench.report.model import Entry, Table, TableColumn, TableRow

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@<!-- -->"}
_MARKUP = re.compile(r"[\\`*_\[\]|~$^]|:(?=//)|(?<=www)\.|^[-+=#]|#$", re.IGNORECASE)


def escape(text: str) -> str:
    """Shown as it is: no markup, HTML, link (also a bare address), table cell or formula comes of it."""
    marked = _MARKUP.sub(lambda found: f"\\{found[0]}", text)
    return re.sub(r"[&<>@]", lambda found: _HTML[found[0]], marked)


def render(table: Table) -> str:
    lines = [f"# {_tag(table)}{escape(table.title)}", "", f"{_tag(table)}{escape(table.caption)}", ""]
    header, align = _header(table)
    lines += [_line(header), _line(align)]
    lines += [_line(_cells(table, row)) for row in table.rows]
    lines += ["", *(f"{escape(note)}  " for note in table.footnotes)]
    return "\n".join(lines).rstrip() + "\n"


def _tag(table: Table) -> str:
    return f"**{escape(table.tag)}**: " if table.tag else ""


def _header(table: Table) -> tuple[list[str], list[str]]:
    header: list[str] = []
    align: list[str] = []
    for column in table.columns:
        header.append(escape(column.header))
        align.append("---:" if column.metric else "---")
        if column.published:
            header += ["published", "deviation"]
            align += ["---:", "---:"]
    if table.with_status:
        header.append("Status")
        align.append("---")
    return header, align


def _cells(table: Table, row: TableRow) -> list[str]:
    cells: list[str] = []
    for column, entry in zip(table.columns, row.entries, strict=True):
        cells.append(_measured(column, entry, row))
        if column.published:
            deviation = _struck(entry.deviation_text) if row.stale else entry.deviation_text
            cells += ["", ""] if row.baseline else [entry.published_text, deviation]
    if table.with_status:
        cells.append(escape(row.status or ("" if row.baseline else "ok")))
    return cells


def _measured(column: TableColumn, entry: Entry, row: TableRow) -> str:
    text = entry.text if column.metric else escape(entry.text)
    if row.stale and column.metric:
        return _struck(text)
    if entry.best:
        return f"**{text}**"
    return f"*{text}*" if row.baseline and column.metric is None and text else text


def _struck(text: str) -> str:
    """In place of grey, which Markdown has not."""
    return f"~~{text}~~" if text not in ("", DASH) else text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

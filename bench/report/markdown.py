"""GitHub-flavoured Markdown: measured, published and deviation side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bench.format import DASH
from bench.report.table import Table, TableRow

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@<!-- -->"}
_MARKUP = re.compile(r"[\\`*_\[\]|~$^]|:(?=//)|(?<=www)\.|^[-+=#]|#$", re.IGNORECASE)


def escape(text: str) -> str:
    """Markdown that shows ``text`` without markup, HTML, links (also bare URLs), table cells or formulas."""
    marked = _MARKUP.sub(lambda match: f"\\{match[0]}", text)
    return re.sub(r"[&<>@]", lambda match: _HTML[match[0]], marked)


def render(table: Table) -> str:
    headers: list[tuple[str, bool]] = []
    for column in table.columns:
        headers.append((escape(column.header), column.metric is not None))
        headers += [("published", True), ("deviation", True)] if column.published else []
    headers += [("Status", False)] * table.with_status
    return page(table, headers, [list(_cells(table, row)) for row in table.rows], table.footnotes)


def page(
    table: Table, headers: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], footnotes: Sequence[str]
) -> str:
    """Title, caption, rows and footnotes of a table; ``headers``, each with whether it heads numbers, and ``rows`` are
    Markdown."""
    tag = f"**{escape(table.tag)}**: " if table.tag else ""
    lines = [f"# {tag}{escape(table.title)}", "", f"{tag}{escape(table.caption)}", ""]
    grid = [[header for header, _ in headers], ["---:" if numeric else "---" for _, numeric in headers], *rows]
    lines += [f"| {' | '.join(cells)} |" for cells in grid]
    lines += ["", *(f"{escape(note)}  " for note in footnotes)]
    return "\n".join(lines).rstrip() + "\n"


def _cells(table: Table, row: TableRow) -> Iterator[str]:
    for column, value in zip(table.columns, row.values, strict=True):
        if column.metric is None:
            text = escape(value.text)
            yield f"*{text}*" if row.baseline and text else text
        else:
            yield f"**{value.text}**" if value.best else _struck(value.text, row)
        if column.published:
            yield "" if row.baseline else value.published_text
            yield "" if row.baseline else _struck(value.deviation_text, row)
    if table.with_status:
        yield escape(row.status_text)


def _struck(text: str, row: TableRow) -> str:
    # Markdown has no grey.
    return f"~~{text}~~" if row.stale and text not in ("", DASH) else text

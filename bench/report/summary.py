"""What a terminal shows at the end of a run: the table without the published values, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.format import DASH
from bench.report.model import Row, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

GAP = 2
"""Spaces of padding between two columns; the box adds one more."""
STATUS_WIDTH = 10
"""A status may be folded to this width."""
MOST_ROWS = 200
"""Cells shown, more than anyone reads in a terminal; the files have all."""


def print_summary(console: Console, table: Table, paths: Sequence[Path] = ()) -> None:
    """Print title, cells, footnotes and the files written; one cell below the other where the terminal is narrow."""
    from rich.text import Text

    tag = (f"{table.tag}: ", "bold yellow") if table.tag else ""
    console.print(Text.assemble(tag, (table.title, "bold")))
    console.print(Text(table.caption, "dim"))
    shown = _shown(table)
    left_out = len(table.rows) - len(shown.rows)
    if _width(shown) <= console.width:
        console.print(_grid(shown))
    else:
        for row in shown.rows:
            console.print(_stacked(shown, row))
    if left_out:
        console.print(Text(f"And {left_out:,} more cells: see table.md.", "dim"))
    for note in table.footnotes:
        console.print(Text(note, "dim"))
    for folder in dict.fromkeys(path.parent for path in paths):
        names = ", ".join(path.name for path in paths if path.parent == folder)
        console.print(Text.assemble("Wrote ", (f"{folder}/", "bold"), f": {names}"), soft_wrap=True)


def _shown(table: Table) -> Table:
    """The table; of one too long the best rows, then the first ones, in its order, and the baselines."""
    cells = [i for i, row in enumerate(table.rows) if not row.baseline]
    if len(cells) <= MOST_ROWS:
        return table
    best_first = sorted(cells, key=lambda i: not any(entry.best for entry in table.rows[i].entries))
    kept = set(best_first[:MOST_ROWS])
    return replace(table, rows=tuple(row for i, row in enumerate(table.rows) if row.baseline or i in kept))


def _metric_columns(table: Table) -> list[int]:
    return [index for index, column in enumerate(table.columns) if column.metric]


def _header(table: Table, index: int) -> str:
    """The unit below the name."""
    return table.columns[index].header.replace(" (", "\n(")


def _width(table: Table) -> int:
    """Columns of a terminal that the grid needs."""
    columns = [[row.label for row in table.rows]]
    columns += [
        [*_header(table, index).split("\n"), *(row.entries[index].text for row in table.rows)]
        for index in _metric_columns(table)
    ]
    widths = [max(map(len, column), default=0) for column in columns] + [STATUS_WIDTH] * table.with_status
    return sum(widths) + (GAP + 1) * (len(widths) - 1)


def _grid(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP, 0, 0), pad_edge=False, show_edge=False, header_style="")
    grid.add_column("Cell", no_wrap=True)
    for index in _metric_columns(table):
        grid.add_column(_text(_header(table, index)), justify="right", no_wrap=True)
    if table.with_status:
        grid.add_column("Status", overflow="fold")
    for row, after in zip(table.rows, [*table.rows[1:], None], strict=True):
        last_cell = bool(after and after.baseline and not row.baseline)
        grid.add_row(*_cells(table, row), style="dim" if row.baseline or row.stale else None, end_section=last_cell)
    return grid


def _cells(table: Table, row: Row) -> list[Text]:
    entries = [row.entries[index] for index in _metric_columns(table)]
    cells = [_text(row.label), *(_text(entry.text, "bold green" if entry.best else "") for entry in entries)]
    if table.with_status:
        cells.append(_text(row.status or ("" if row.baseline else "ok"), "red" if row.status else ""))
    return cells


def _stacked(table: Table, row: Row) -> Text:
    from rich.text import Text

    shown = [(table.columns[index].header, row.entries[index].text) for index in _metric_columns(table)]
    values = [row.status] if row.status else []
    values += [f"{header} {value}" for header, value in shown if value not in ("", DASH)]
    return Text.assemble((row.label, "dim" if row.baseline or row.stale else "bold"), f"\n  {', '.join(values)}")


def _text(words: str, style: str = "") -> Text:
    """Not markup: a label may hold brackets."""
    from rich.text import Text

    return Text(words, style)

"""What a terminal shows at the end of a run: the table without the published values, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.model import Entry, Row, Table, TableColumn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text


def print_summary(console: Console, table: Table, paths: Sequence[Path] = ()) -> None:
    """Print title, cells, footnotes and the files written; long words are folded where the terminal is narrow."""
    from rich.text import Text

    if table.tag:
        console.print(Text.assemble((table.tag, "bold yellow"), ": ", table.title))
    else:
        console.print(Text(table.title))
    console.print(Text(table.caption, "dim"))
    console.print(_grid(table))
    for note in table.footnotes:
        console.print(Text(note, "dim"))
    if paths:
        folders = dict.fromkeys(path.parent for path in paths)
        for folder in folders:
            names = ", ".join(path.name for path in paths if path.parent == folder)
            console.print(Text.assemble("Wrote ", (f"{folder}/", "bold"), f": {names}"), soft_wrap=True)


def _grid(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for column in table.columns:
        grid.add_column(_text(column.header), justify="right" if column.metric else "left", overflow="fold")
    if table.with_status:
        grid.add_column("Status", overflow="fold")
    for before, row in zip([None, *table.rows], table.rows, strict=False):
        if row.baseline and before and not before.baseline:
            grid.add_section()
        grid.add_row(*_cells(table, row), style="dim" if row.baseline else None)
    return grid


def _cells(table: Table, row: Row) -> list[Text]:
    cells = [_cell(column, entry) for column, entry in zip(table.columns, row.entries, strict=True)]
    if table.with_status:
        cells.append(_text(row.status or ("" if row.baseline else "ok"), "red" if row.status else ""))
    return cells


def _cell(column: TableColumn, entry: Entry) -> Text:
    return _text(entry.text, "bold green" if column.metric and entry.best else "")


def _text(words: str, style: str = "") -> Text:
    """Not markup: a label may hold brackets."""
    from rich.text import Text

    return Text(words, style)

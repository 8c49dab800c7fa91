"""Tables on a terminal, and the summary of a run: one grid, and one row below the other where it is too narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.format import DASH, one_line
from bench.report.captions import scale_tag
from bench.report.table import Table, TableRow

GAP = 2
"""Columns of a terminal between two columns of a grid: a space of padding and the box's."""
STATUS, FOLDED = "Status", 10
"""A column of statuses may be folded to this width."""
WIDEST = 500
"""A file or pipe gets lines as long as the grid needs, but no longer."""
MAX_ROWS = 200
"""Cells in the summary, more than anyone reads in a terminal; the files have all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRow:
    """One row; the first text is its label."""

    texts: Sequence[Text]
    style: str = ""
    ends_section: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table of texts: labels, then numbers, a status that may be folded, or a verdict."""

    title: str = ""
    headers: Sequence[str]
    rows: Sequence[GridRow]

    @property
    def width(self) -> int:
        """Terminal columns that the grid needs."""
        columns = [
            [*_header(header).split("\n"), *(row.texts[index].plain for row in self.rows if index < len(row.texts))]
            for index, header in enumerate(self.headers)
        ]
        widths = [
            FOLDED if header == STATUS else max(map(cell_len, column))
            for header, column in zip(self.headers, columns, strict=True)
        ]
        return sum(widths) + GAP * (len(widths) - 1)


def text(words: str, style: str = "") -> Text:
    """Not markup: a label may hold brackets."""
    return Text(words, style)


def heading(scale: str, title: str) -> Text:
    """The title, after the tag of a scale that is not the published setting."""
    tag = scale_tag(scale)
    return Text.assemble((f"{tag}: " if tag else "", "bold yellow"), (one_line(title), "bold"))


def fit(console: Console, *grids: Grid) -> None:
    """Widen the lines of a file or pipe to what the grids need."""
    if not console.is_terminal:
        console.width = max(console.width, *(min(grid.width, WIDEST) for grid in grids))


def print_grid(console: Console, grid: Grid) -> None:
    if grid.title:
        console.print(text(f"\n{grid.title}", "bold"))
    if grid.width > console.width:
        for row in grid.rows:
            console.print(_stacked(grid, row))
        return
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False, header_style="")
    for index, header in enumerate(grid.headers):
        folds = header == STATUS
        table.add_column(
            text(_header(header)),
            justify="right" if index and header not in (STATUS, "Verdict") else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
            vertical="bottom",
        )
    for row in grid.rows:
        table.add_row(*row.texts, style=row.style or None, end_section=row.ends_section)
    console.print(table)


def _header(header: str) -> str:
    """The unit stands below the name."""
    return header.replace(" (", "\n(")


def _stacked(grid: Grid, row: GridRow) -> Text:
    pairs = zip(grid.headers[1:], row.texts[1:], strict=False)
    known = [(" ".join(header.split()), value) for header, value in pairs if value.plain not in ("", DASH)]
    shown = Text(", ").join(Text.assemble(f"{header} ", value) for header, value in known)
    label = Text.assemble((row.texts[0].plain, row.style or "bold"))
    return Text.assemble(label, "\n  ", shown) if known else label


def print_summary(console: Console, table: Table, paths: Sequence[Path] = ()) -> None:
    """Title, caption, cells without published values, footnotes, and the files written."""
    grid = _summary(table)
    fit(console, grid)
    console.print(Text.assemble((f"{table.tag}: " if table.tag else "", "bold yellow"), (table.title, "bold")))
    console.print(text(table.caption, "dim"))
    print_grid(console, grid)
    if left_out := len(table.rows) - len(grid.rows):
        console.print(text(f"And {left_out:,} more cells: see table.md.", "dim"))
    for note in table.footnotes:
        console.print(text(note, "dim"))
    for folder in dict.fromkeys(path.parent for path in paths):
        names = ", ".join(path.name for path in paths if path.parent == folder)
        console.print(Text.assemble("Wrote ", (f"{folder}/", "bold"), f": {names}"), soft_wrap=True)


def _summary(table: Table) -> Grid:
    metrics = [index for index, column in enumerate(table.columns) if column.metric]
    status = [STATUS] * table.with_status
    return Grid(
        headers=["Cell", *(table.columns[index].header for index in metrics), *status],
        rows=[*_summary_rows(table, metrics)],
    )


def _summary_rows(table: Table, metrics: Sequence[int]) -> Iterator[GridRow]:
    rows = _shown(table)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        values = [row.values[index] for index in metrics]
        texts = [text(row.label), *(text(value.text, "bold green" if value.best else "") for value in values)]
        if table.with_status:
            status = row.status or ("" if row.baseline else "ok")
            texts.append(text(status, "red" if row.status else ""))
        before_baselines = bool(following and following.baseline and not row.baseline)
        yield GridRow(texts=texts, style="dim" if row.baseline or row.stale else "", ends_section=before_baselines)


def _shown(table: Table) -> list[TableRow]:
    """All rows; of a table too long the best ones, then the first, in its order, and the baselines."""
    cells = [i for i, row in enumerate(table.rows) if not row.baseline]
    best_first = sorted(cells, key=lambda i: not any(entry.best for entry in table.rows[i].values))
    kept = set(best_first[:MAX_ROWS])
    return [row for i, row in enumerate(table.rows) if row.baseline or i in kept]

"""Tables on a terminal, or one block per row where it is too narrow, and the summary of a run."""

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
"""Characters between two columns: a space of padding and the space of the box."""
STATUS, FOLDED = "Status", 10
"""Header of the statuses, whose column may be folded, and its least width."""
WIDEST = 500
"""Maximum characters of a line in a file or pipe."""
MAX_ROWS = 200
"""Maximum cells in the summary; the files have all."""


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
    """The words as they are."""
    # rich takes brackets in a str, which a label may hold, for markup.
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
    """The header with its unit on a second line."""
    return header.replace(" (", "\n(")


def _stacked(grid: Grid, row: GridRow) -> Text:
    pairs = zip(grid.headers[1:], row.texts[1:], strict=False)
    known = [(" ".join(header.split()), value) for header, value in pairs if value.plain not in ("", DASH)]
    shown = Text(", ").join(Text.assemble(f"{header} ", value) for header, value in known)
    label = Text.assemble((row.texts[0].plain, row.style or "bold"))
    return Text.assemble(label, "\n  ", shown) if known else label


def print_summary(console: Console, table: Table, paths: Sequence[Path] = ()) -> None:
    """Print title, caption, cells without published values, footnotes, and the files written."""
    metrics = [index for index, column in enumerate(table.columns) if column.metric]
    headers = ["Cell", *(table.columns[index].header for index in metrics), *([STATUS] * table.with_status)]
    grid = Grid(headers=headers, rows=[*_summary_rows(table, metrics)])
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


def _summary_rows(table: Table, metrics: Sequence[int]) -> Iterator[GridRow]:
    rows = _shown(table)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        values = [row.values[index] for index in metrics]
        texts = [text(row.label), *(text(value.text, "bold green" if value.best else "") for value in values)]
        if table.with_status:
            texts.append(text(row.status_text, "red" if row.status else ""))
        before_baselines = bool(following and following.baseline and not row.baseline)
        yield GridRow(texts=texts, style="dim" if row.baseline or row.stale else "", ends_section=before_baselines)


def _shown(table: Table) -> list[TableRow]:
    """Rows in the order of the table; of a long table the best ones, then the first ones, and the baselines."""
    cells = [i for i, row in enumerate(table.rows) if not row.baseline]
    best_first = sorted(cells, key=lambda i: not any(value.best for value in table.rows[i].values))
    kept = set(best_first[:MAX_ROWS])
    return [row for i, row in enumerate(table.rows) if row.baseline or i in kept]

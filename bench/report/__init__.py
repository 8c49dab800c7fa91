"""Tables and plots of a spec's results, from specs and records alone; the same input gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import OutputError, SpecError
from bench.files import read_regular, write_atomic

if TYPE_CHECKING:
    from bench.analysis.predictions import ExampleScores
    from bench.records.record import CellRecord
    from bench.report.table import Table
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

    Records = Mapping[str, CellRecord] | Iterable[CellRecord]
    """Records by ``cell_id``, or in any order, of which the last of a cell counts."""

TABLES = ("table.md", "table.tex", "table.csv")
DRAWING = "drawing the Pareto plot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A written report."""

    table: Table
    files: list[Path]


def build_table(
    spec: Spec,
    scale: str,
    cells: Sequence[Cell],
    records: Records,
    examples: ExampleScores | None = None,
    stale: Mapping[str, str] | None = None,
) -> Table:
    """The table that all renderers print; with ``examples``, cells are compared on the examples they share.

    ``stale``: ids of records that do not count (see ``bench.execution.inputs.stale``), shown in grey.

    Raises SpecError for a column that is no part, axis or metric."""
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import rows_of
    from bench.report.table import table_of

    return table_of(spec, scale, rows_of(spec, cells, _by_id(records), stale), examples or ExampleScores(None))


@contextmanager
def warmed_up(out_dir: Path) -> Iterator[None]:
    """Start the processes of a report while the records are read, unless ``out_dir`` has pictures to keep."""
    from bench.report import background, html, pareto_plot

    try:
        if not (out_dir / pareto_plot.PICTURES[0]).is_file():
            background.start(DRAWING, pareto_plot.warm_up)
            html.start_bundling()
        yield
    finally:
        background.end_all()


def check_folder(out_dir: Path) -> None:
    """Raise SpecError for a folder in which no report can be written."""
    from bench.report import html
    from bench.report.pareto_plot import PICTURES

    remedy = "choose another --reports"
    existing = next(path for path in (out_dir, *out_dir.parents) if path.exists())
    if not existing.is_dir():
        raise SpecError(f"the report cannot be written to {out_dir}: {existing} is no folder; {remedy}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SpecError(f"the report cannot be written to {out_dir}: {existing} is read-only; {remedy}")
    for name in (html.PAGE, *TABLES, *PICTURES):
        if (out_dir / name).is_dir():
            raise SpecError(f"the report cannot be written: {out_dir / name} is a folder; remove it, or {remedy}")


def write_report(
    spec: Spec,
    scale: str,
    cells: Sequence[Cell],
    records: Records,
    out_dir: Path,
    examples: ExampleScores | None = None,
    stale: Mapping[str, str] | None = None,
) -> Report:
    """Write tables, plots and the HTML page into ``out_dir``, each file atomically; ``stale``: see ``build_table``.

    Plots and a page that would not change are kept. Raises OutputError if a file cannot be written."""
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import rows_of
    from bench.report import background, csv_file, html, latex, markdown, pareto_plot
    from bench.report.pareto import build_plot
    from bench.report.table import table_of

    examples = examples or ExampleScores(None)
    rows = rows_of(spec, cells, _by_id(records), stale)
    page, pictures = out_dir / html.PAGE, [out_dir / name for name in pareto_plot.PICTURES]
    try:
        with _written(out_dir):
            out_dir.mkdir(parents=True, exist_ok=True)
        plot = build_plot(spec, scale, rows, examples)
        digest, drawn = pareto_plot.digest(plot), None
        if not _all_carry(pictures, digest):
            # First of all: drawing takes longest, and works beside the tables and the page.
            background.start(DRAWING, pareto_plot.warm_up)
            drawn = background.start(DRAWING, pareto_plot.render, plot, digest)
        table = table_of(spec, scale, rows, examples)
        for name, render in zip(TABLES, (markdown.render, latex.render, csv_file.render), strict=True):
            _write(out_dir / name, render(table).encode())
        if content := html.page(spec, table, rows, examples, page):
            _write(page, content)
        for path, picture in zip(pictures, drawn(), strict=True) if drawn else ():
            _write(path, picture)
    finally:
        background.end_all()
    return Report(table=table, files=[page, *(out_dir / name for name in TABLES), *pictures])


def _by_id(records: Records) -> Mapping[str, CellRecord]:
    return records if isinstance(records, Mapping) else {record.cell_id: record for record in records}


def _all_carry(pictures: Sequence[Path], digest: str) -> bool:
    """Whether all pictures are there and show the plot of this digest."""
    try:
        return all(digest.encode() in read_regular(path) for path in pictures)
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    with _written(path):
        write_atomic(path, content)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"the report cannot be written: {path}: {problem.strerror or problem}; the records are kept: mend that, or "
            "choose another --reports, and run the same command with --report-only"
        ) from problem

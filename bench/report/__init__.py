"""Tables and plots of a spec's results: only specs and records go in, and the same input gives the same bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import OutputError, SpecError
from bench.files import read_regular

if TYPE_CHECKING:
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import Row
    from bench.records.record import CellRecord
    from bench.report.table import Table
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

    Records = Mapping[str, CellRecord] | Iterable[CellRecord]
    """By ``cell_id``, or in any order; the last of a cell counts."""


TABLES = ("table.md", "table.tex", "table.csv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was written."""

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
    """The table that all exporters print; with ``examples``, cells are compared on the examples they share.

    ``stale``: of records that do not count (see ``bench.execution.inputs.stale``), shown in grey.

    Raises SpecError for a column that is no part, axis or metric."""
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import rows_of
    from bench.report.table import table_of

    return table_of(spec, scale, rows_of(spec, cells, _by_id(records), stale), examples or ExampleScores(None))


DRAWING = "drawing the Pareto plot"


@contextmanager
def warmed_up() -> Iterator[None]:
    """Begin what takes longest beside the rest, before it is known what there is to report."""
    from bench.report import background, html, pareto_plot

    try:
        background.start(DRAWING, pareto_plot.warm_up)
        html.start_bundling()
        yield
    finally:
        background.end_all()


def write_report(
    spec: Spec,
    scale: str,
    cells: Sequence[Cell],
    records: Records,
    out_dir: Path,
    examples: ExampleScores | None = None,
    stale: Mapping[str, str] | None = None,
) -> Report:
    """Write tables, plots and the HTML page into ``out_dir``, each file replaced at once; ``stale`` as above.

    Plots and a page that would not change are kept. Raises OutputError if a file cannot be written."""
    from bench.analysis.rows import rows_of
    from bench.report import background

    try:
        return _write(spec, scale, rows_of(spec, cells, _by_id(records), stale), out_dir, examples)
    finally:
        background.end_all()


def check_folder(out_dir: Path) -> None:
    """Raises SpecError if a report cannot be written there, as far as that can be known before there is one."""
    from bench.report import html
    from bench.report.pareto_plot import PICTURES

    there = next(path for path in (out_dir, *out_dir.parents) if path.exists())
    if not there.is_dir():
        raise SpecError(f"the report cannot be written to {out_dir}: {there} is no folder; choose another --reports")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SpecError(f"the report cannot be written to {out_dir}: {there} is read-only; choose another --reports")
    for name in (html.PAGE, *TABLES, *PICTURES):
        if (out_dir / name).is_dir():
            raise SpecError(
                f"the report cannot be written: {out_dir / name} is a folder; remove it, or choose another --reports"
            )


def _write(spec: Spec, scale: str, groups: Sequence[Row], out_dir: Path, examples: ExampleScores | None) -> Report:
    from bench.analysis.predictions import ExampleScores
    from bench.report import background, csv_file, html, latex, markdown, pareto_plot
    from bench.report.pareto import build_plot
    from bench.report.table import table_of

    examples = examples or ExampleScores(None)
    plot = build_plot(spec, scale, groups, examples)
    with _written(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    pictures = [out_dir / name for name in pareto_plot.PICTURES]
    digest = pareto_plot.digest(plot)
    drawn = None
    if not _all_carry(pictures, digest):
        background.start(DRAWING, pareto_plot.warm_up)
        drawn = background.start(DRAWING, pareto_plot.render, plot, digest)
    table = table_of(spec, scale, groups, examples)
    for name, render in zip(TABLES, (markdown.render, latex.render, csv_file.render), strict=True):
        _replace(out_dir / name, render(table).encode())
    page = out_dir / html.PAGE
    if content := html.page(spec, table, groups, examples, page):
        _replace(page, content)
    if drawn:
        for path, picture in zip(pictures, drawn(), strict=True):
            _replace(path, picture)
    return Report(table=table, files=[page, *(out_dir / name for name in TABLES), *pictures])


def _by_id(records: Records) -> Mapping[str, CellRecord]:
    return records if isinstance(records, Mapping) else {record.cell_id: record for record in records}


def _all_carry(pictures: Sequence[Path], digest: str) -> bool:
    """Whether the pictures there already show the plot of this digest."""
    try:
        return all(digest.encode() in read_regular(path) for path in pictures)
    except OSError:
        return False


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with _written(path):
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"the report cannot be written: {path}: {problem.strerror or problem}; the records are kept: mend that, or "
            "choose another --reports, and run the same command with --report-only"
        ) from problem

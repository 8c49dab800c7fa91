"""The arguments of ``run_bench.py compare`` and ``run_bench.py export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.endings import endings

COMPARE_EPILOG = """\b
Examples:
  run_bench.py compare main:results/gallery results/gallery     what a branch changed
  run_bench.py compare results/table1@1a2b3c results/table1     what code changed since that commit
  run_bench.py compare old/demo.jsonl new/demo.jsonl --tolerance step_time=20% --json
  run_bench.py compare results/table1 --against 'T-T-LoRA rank=4' --all      every cell beside that one
  run_bench.py compare --published specs/table1.yaml            which of the paper's numbers are reproduced

\b
A and B are each one of
{syntax}

\b
Cells are matched by label and seed within their spec and scale (by label and seed alone where each side is of one
spec). Where device, data or settings differ, that is said, and what it makes impossible to compare is left out:
  device            memory, times and energy
  data digest       memory, times, energy and scores
  rule of scoring   scores
Other settings, weights and versions are named: changes may come of them.

\b
What counts as a change:
  parameters, adapter size   any
  memory, times, energy      more than the tolerance (memory 1 %, reserved 2 %, host and energy 10 %, others 5 %); and
                             for step_time more than the spread of single steps; with seeds, than theirs
  scores                     a test paired over questions (and seeds), p < --alpha, corrected for the number of tests

\b
Exit codes:
  0    nothing is worse beyond noise (--published: no number that can be compared is off)
  1    something is: a cost or a score, a cell that no longer ends ok, or a cell that B lacks (see --allow-missing)
  2    the arguments are wrong, or records cannot be read; nothing was compared
"""
EXPORT_EPILOG = """\b
Examples:
  run_bench.py export results -o all.parquet                    every record of every spec, one row each
  run_bench.py export results/table1/demo.jsonl -o demo.csv
  run_bench.py export specs/table1.yaml --format csv --columns 'label,params.*,scores.global.value'
  run_bench.py export specs/table1.yaml -o view.tex --columns rank,memory,global --group-by vit --digits 3
  run_bench.py export specs/table1.yaml --format md --columns jtm,dec,global --transpose --published

\b
What is exported is one of
{syntax}
  SPEC.yaml    the records of a spec's cells at one scale

\b
.parquet and .csv hold records as they are: raw values in bytes, seconds and shares under the names of the record's
fields. docs/columns.md describes every column and its unit; Parquet files carry the same as metadata, and need pyarrow
(extra [parquet]). .tex and .md hold a view of a spec's table as reports/ has it: printed values, with the best marked.

\b
Exit codes: 0 written; 2 the arguments are wrong, records cannot be read, or the file cannot be written.
"""
NAMES = ("compare", "export")


def command(name: str) -> Any:
    """The parser of a subcommand, one of ``NAMES``."""
    from bench.sources import SYNTAX

    functions: dict[str, tuple[Callable[..., None], str]] = {
        "compare": (compare, COMPARE_EPILOG),
        "export": (export, EXPORT_EPILOG),
    }
    function, epilog = functions[name]
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    names = {"help_option_names": ["-h", "--help"]}
    app.command(epilog=epilog.replace("{syntax}", SYNTAX), context_settings=names)(function)
    return typer.main.get_command(app)


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B", help="Two sets of records, see below; with --published, spec files.", show_default=False
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Compare the records of specs with the numbers they say were published."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Compare the cells of one set of records, A, with its cell of this label: what each choice costs and "
            "wins beside it.",
        ),
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=SIZE",
            help="Up to which size a change means nothing: step_time=10% of the value, global=1.5 in the metric's "
            "unit; repeatable.",
        ),
    ] = None,
    alpha: Annotated[float, typer.Option(metavar="P", help="Significance level of the tests on scores.")] = 0.05,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Compare these metrics; without it, costs and the scores of the task."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only cells whose label matches; repeatable.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Cells that B lacks do not make the exit code 1.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every metric of every cell, not only what changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result, complete.")] = False,
    results: Annotated[Path, typer.Option(metavar="DIR", help="With --published: folder of the records.")] = Path(
        "results"
    ),
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --published: the scale; without it, the paper's, unless only another one has records.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="PLACE=VALUE", help="With --published: as in the run.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="With --published: as in the run.")] = None,
) -> None:
    """What changed between two sets of records beyond noise: in cost, in score, in how cells ended.

    With --published: a verdict per cell and column on the numbers of a paper, and where these contradict each other.
    """
    with endings(lambda _: 2):
        from bench import compare_command

        options = compare_command.Options(
            names=names or [],
            published=published,
            against=against,
            alpha=alpha,
            tolerances=tolerance or [],
            metrics=words(metrics),
            only=only or [],
            allow_missing=allow_missing,
            everything=everything,
            as_json=as_json,
            results=results,
            scale=scale,
            sets=sets or [],
            seeds=parse_seeds(seeds),
        )
        raise typer.Exit(compare_command.run(options))


def export(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="Records or specs, see below.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write: .parquet or .csv for records, .tex or .md."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="csv, parquet, tex or md; without -o it is printed."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Only these. Of a table: parts, axes, seed, status, metrics; of records: names or globs of columns.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a table: rows of the same part or axis under a heading.")
    ] = None,
    transpose: Annotated[
        bool, typer.Option("--transpose", help="Of a table: a column per cell, a row per quantity.")
    ] = False,
    digits: Annotated[
        int | None, typer.Option(metavar="N", help="Of a table: significant digits of every number.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Of a table: published values in brackets.")] = False,
    results: Annotated[Path, typer.Option(metavar="DIR", help="Of a spec: folder of the records.")] = Path("results"),
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a spec: the scale; without it, the paper's, unless only another one has records."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="PLACE=VALUE", help="Of a spec: as in the run.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Of a spec: as in the run.")] = None,
) -> None:
    """Records as Parquet or CSV for your own analysis; a spec's table as LaTeX or Markdown in the view you need."""
    with endings(lambda _: 2):
        from bench import export_command
        from bench.report.view import Wanted

        wanted = Wanted(
            columns=words(columns), group_by=group_by, transpose=transpose, digits=digits, published=published
        )
        options = export_command.Options(
            names=names or [],
            output=output,
            format=form,
            wanted=wanted,
            results=results,
            scale=scale,
            sets=sets or [],
            seeds=parse_seeds(seeds),
        )
        export_command.run(options)


def words(text: str | None) -> list[str]:
    """``a, b`` -> ``["a", "b"]``."""
    return [word for part in (text or "").split(",") if (word := part.strip())]


def parse_seeds(text: str | None) -> list[int] | None:
    """``1,2,3``. Raises SpecError."""
    from bench.errors import SpecError

    if text is None:
        return None
    found = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in found):
        raise SpecError(f"--seeds {text!r}: write whole numbers with commas between, e.g. --seeds 1,2,3")
    return [int(word) for word in found]

"""The command line: arguments and help texts. ``bench.commands`` does what is asked."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from bench.endings import OTHER_CODES, RUN_CODES, Stdout, endings, say
from bench.errors import OutputError

RUN_EPILOG = """\b
Examples:
  run_bench.py specs/table1.yaml                       run every cell, write results/ and reports/
  run_bench.py specs/table1.yaml --list                show the cells and which are done; run nothing
  run_bench.py specs/table1.yaml --only 'F-T-LoRA*'    run some cells only
  run_bench.py specs/table1.yaml --set train.steps=20 --seeds 1,2,3
  run_bench.py specs/table?.yaml --scale demo --json    several specs, records as JSON on stdout
  run_bench.py specs/table1.yaml --report-only         regenerate tables and plots; no runs
  run_bench.py --methods                               every method that a spec can name
  run_bench.py specs/table1.yaml --estimate            parameters, GPU memory and FLOPs of every cell, without a run
  run_bench.py specs/table1.yaml --estimate --budget 24GiB --max-batch 24GiB
  run_bench.py specs/table1.yaml --budget 24GiB        run the cells that fit; the others become records, too

\b
Other commands, each with its --help (`run` may be left out before specs):
  run_bench.py compare A B                             what changed between two sets of records beyond noise
  run_bench.py compare --published specs/table1.yaml   which of a paper's numbers are reproduced
  run_bench.py export results -o all.parquet           every record as one row (or .csv)
  run_bench.py export specs/table1.yaml -o view.tex --columns vit,rank,memory,global --group-by vit

\b
--set takes any dotted key of the spec; its value is YAML:
  --set train.optimizer.lr=1e-4  --set run.device=cpu  --set model.weights=null
  --set 'matrix.axes.methods.LoRA.r=[4, 8, 16]'

\b
Without --scale a run takes paper where a CUDA device, the data and the weights are there, else demo; the first line
printed says which and why. --only limits what is run; the report always has all cells.

\b
A second run continues the first: finished cells whose settings, data, weights and device are unchanged are
skipped. --fresh runs them again; --forget --scale NAME removes their records, predictions, logs and adapters without
asking (a records file that is merely deleted comes back from the job folders). Ctrl-C once stops cleanly and keeps
what is done, twice stops at once.

\b
--estimate needs no GPU, data or weights. It is for the spec as it stands (scale paper) unless --scale is given, and
for the GPU generation of --gpu, else of the visible GPU, else Ampere. Sizes have a unit: 24GiB, 24GB, 512MiB
(GiB = 2^30 bytes, GB = 10^9). Cells that a --budget kept from running run as soon as it allows, or without it.

\b
--json prints {"spec", "scale", "records": [...]}, for several specs a list of these; with --list, "cells"
instead of "records". Everything else goes to stderr.

\b
Exit codes:
  0    every cell ok (running out of memory is a result, too; so is not fitting the budget)
  1    some cell crashed, failed, timed out or diverged; or records, reports or stdout could not be read or written
  2    the spec, the data, the weights or the arguments are wrong; nothing was run
  130  interrupted
"""
COMPARE_EPILOG = """\b
Examples:
  run_bench.py compare main:results/gallery results/gallery     what a branch changed
  run_bench.py compare results/table1@1a2b3c results/table1     what code changed since that commit
  run_bench.py compare old/demo.jsonl new/demo.jsonl --tolerance step_time=20% --json
  run_bench.py compare results/table1 --against 'T-T-LoRA rank=4' --all      every cell beside that one
  run_bench.py compare --published specs/table1.yaml            which of the paper's numbers are reproduced

\b
A and B are each one of
  PATH         a records file (results/table1/demo.jsonl), or a folder of them (results, results/table1)
  REV:PATH     the same as git has it at a revision (main:results/gallery, HEAD~3:results/gallery/table1/demo.jsonl)
  PATH@COMMIT  of the file's lines those that this commit of the program made, by the start of its hash; a rerun with
               --fresh keeps the older ones, though not their predictions

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
  --tolerance METRIC=SIZE    with % a share of the value, else in the metric's unit: step_time=10%, global=1.5

\b
--results, --scale, --set and --seeds say which records of specs are meant: with --published, as in the run.

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
  PATH         a records file (results/table1/demo.jsonl), or a folder of them (results, results/table1)
  REV:PATH     the same as git has it at a revision (main:results/gallery, HEAD~3:results/gallery/table1/demo.jsonl)
  PATH@COMMIT  of the file's lines those that this commit of the program made, by the start of its hash; a rerun with
               --fresh keeps the older ones, though not their predictions
  SPEC.yaml    the records of a spec's cells at one scale

\b
.parquet and .csv hold records as they are: raw values in bytes, seconds and shares under the names of the record's
fields. docs/columns.md describes every column and its unit; Parquet files carry the same as metadata, and need pyarrow
(extra [parquet]). .tex and .md hold a view of a spec's table as reports/ has it: printed values, with the best marked.

\b
Exit codes: 0 written; 2 the arguments are wrong, records cannot be read, or the file cannot be written.
"""


class _RunByDefault(TyperGroup):
    """Group whose command ``run`` may be left out; a spec file called ``compare`` is ``./compare``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])


app = typer.Typer(cls=_RunByDefault, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_command = partial(app.command, context_settings={"help_option_names": ["-h", "--help"]})

Text = str | None
Only = Annotated[list[str] | None, Option("--only", metavar="GLOB", help="Only cells whose label matches; repeatable.")]
Sets = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a key of the spec; repeatable.")]
Seeds = Annotated[Text, Option("--seeds", metavar="1,2,3", help="Run every cell with each of these seeds.")]
Results = Annotated[Path, Option("--results", metavar="DIR", help="Folder of the records of specs.")]
AsJson = Annotated[bool, Option("--json", help="Print a machine-readable result.")]
RecordsScale = Annotated[
    Text,
    Option("--scale", metavar="NAME", help="Scale of a spec; default: paper, unless only another one has records."),
]


@_command("run", epilog=RUN_EPILOG)
def run(
    specs: Annotated[list[str] | None, Argument(metavar="SPEC", help="Spec files, e.g. specs/table1.yaml.")] = None,
    scale: Annotated[
        Text, Option(metavar="NAME", help="Scale of the specs, e.g. paper or demo; default: see below.")
    ] = None,
    only: Only = None,
    sets: Sets = None,
    seeds: Seeds = None,
    executor: Annotated[
        str, Option(metavar="NAME", help="local: a worker process per cell; inline: in this process, for debugging.")
    ] = "local",
    results: Results = Path("results"),
    reports: Annotated[Path, Option(metavar="DIR", help="Folder of tables and plots.")] = Path("reports"),
    report_only: Annotated[
        bool, Option("--report-only", help="Run nothing; write the report of the stored records.")
    ] = False,
    list_only: Annotated[
        bool, Option("--list", help="Run nothing; list the cells and the status of their records.")
    ] = False,
    estimate: Annotated[
        bool,
        Option("--estimate", help="Run nothing; show parameters, GPU memory, FLOPs and adapter size of all cells."),
    ] = False,
    budget: Annotated[
        Text,
        Option(metavar="SIZE", help="Available GPU memory, e.g. 24GiB: skip (--estimate: mark) cells that cannot fit."),
    ] = None,
    max_batch: Annotated[
        Text, Option(metavar="SIZE", help="With --estimate: find the largest training batch that fits this memory.")
    ] = None,
    gpu: Annotated[
        Text,
        Option(metavar="NAME", help="GPU generation of estimates: volta, turing, ampere, ada, hopper or blackwell."),
    ] = None,
    fresh: Annotated[bool, Option("--fresh", help="Run finished cells again.")] = False,
    forget: Annotated[
        bool, Option("--forget", help="Run nothing; remove records and job folders of the cells at --scale, for good.")
    ] = False,
    as_json: AsJson = False,
    methods: Annotated[
        bool, Option("--methods", help="List every method a spec can name, where it applies and what it needs.")
    ] = False,
    print_schema: Annotated[
        bool, Option("--print-schema", help="Print the JSON schemas of spec and record; SPEC `spec` or `record`: one.")
    ] = False,
    version: Annotated[
        bool, Option("--version", help="Print the version and the tested library versions; with --json, as JSON.")
    ] = False,
) -> None:
    """Freeze, train or adapt each part of a model, and see what every choice costs and gains.

    Runs the cells of each SPEC; writes records to results/, tables and plots to reports/.
    """
    with endings(RUN_CODES):
        from bench import commands

        names = specs or []
        if version:
            print(commands.version_text(as_json=as_json))
        elif methods:
            commands.print_methods(as_json=as_json)
        elif print_schema:
            print(commands.schema_text(names), end="")
        else:
            given = {"--report-only": report_only, "--list": list_only, "--fresh": fresh, "--forget": forget}
            given |= {"--estimate": estimate}
            sizes = {"--budget": budget, "--max-batch": max_batch, "--gpu": gpu}
            load = commands.loader(scale, sets, seeds, results, only=only or (), reports=reports)
            code = commands.bench(names, load, given | sizes, scale=scale, executor=executor, as_json=as_json)
            raise typer.Exit(code)


@_command("compare", epilog=COMPARE_EPILOG)
def compare(
    names: Annotated[
        list[str] | None, Argument(metavar="A B", help="Two sets of records; with --published, spec files.")
    ] = None,
    published: Annotated[
        bool, Option("--published", help="Compare the records of specs with the published numbers in them.")
    ] = False,
    against: Annotated[
        Text, Option(metavar="LABEL", help="Compare the cells of one set, A, with its cell of this label.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        Option(metavar="METRIC=SIZE", help="Largest change within noise, e.g. step_time=10%, global=1.5; repeatable."),
    ] = None,
    alpha: Annotated[float, Option(metavar="P", help="Significance level of the tests on scores.")] = 0.05,
    metrics: Annotated[
        Text, Option(metavar="A,B,C", help="Metrics to compare; default: costs and the scores of the task.")
    ] = None,
    only: Only = None,
    allow_missing: Annotated[
        bool, Option("--allow-missing", help="Cells that B lacks do not make the exit code 1.")
    ] = False,
    everything: Annotated[bool, Option("--all", help="Show every metric of every cell, not only changes.")] = False,
    as_json: AsJson = False,
    results: Results = Path("results"),
    scale: RecordsScale = None,
    sets: Sets = None,
    seeds: Seeds = None,
) -> None:
    """Compare two sets of records: changes beyond noise in costs, scores and statuses.

    With --published: a verdict on each number of a paper, and contradictions between these numbers.
    """
    with endings(OTHER_CODES):
        from bench import commands

        about_records: dict[str, object] = {"--against": against, "--metrics": metrics, "--only": only}
        about_records |= {"--allow-missing": allow_missing, "--all": everything}
        about_specs: dict[str, object] = {"--scale": scale, "--set": sets, "--seeds": seeds}
        belongs = "two sets of records" if published else "a spec's records with --published"
        refused = about_records if published else about_specs
        commands.refuse(refused, f"is for the comparison of {belongs}; leave it out")
        rules = commands.compare_rules(alpha, tolerance or (), commands.words(metrics))
        if published:
            load = commands.loader(scale, sets, seeds, results)
            raise typer.Exit(commands.compare_published(names or [], load, rules, as_json=as_json))
        show = {"everything": everything, "as_json": as_json}
        code = commands.compare_records(
            names or [], rules, against=against, only=only or (), allow_missing=allow_missing, **show
        )
        raise typer.Exit(code)


@_command("export", epilog=EXPORT_EPILOG)
def export(
    names: Annotated[list[str] | None, Argument(metavar="SOURCE", help="Records or specs, see below.")] = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", metavar="FILE", help="File to write: .parquet or .csv for records, .tex or .md."),
    ] = None,
    form: Annotated[
        Text, Option("--format", metavar="NAME", help="csv, parquet, tex or md; without -o it is printed.")
    ] = None,
    columns: Annotated[
        Text,
        Option(
            metavar="A,B,C",
            help="Columns: parts, axes, seed, status and metrics of a table; globs of names for records.",
        ),
    ] = None,
    group_by: Annotated[
        Text, Option(metavar="NAME", help="Table: group rows by a part or an axis, under headings.")
    ] = None,
    transpose: Annotated[bool, Option("--transpose", help="Table: a column per cell, a row per quantity.")] = False,
    digits: Annotated[int | None, Option(metavar="N", help="Table: significant digits of every number.")] = None,
    published: Annotated[bool, Option("--published", help="Table: add published values in brackets.")] = False,
    results: Results = Path("results"),
    scale: RecordsScale = None,
    sets: Sets = None,
    seeds: Seeds = None,
) -> None:
    """Export records as Parquet or CSV for analysis, or a spec's table as LaTeX or Markdown."""
    with endings(OTHER_CODES):
        from bench import commands

        chosen = commands.export_format(names or [], output, form)
        if not any(commands.is_spec(name) for name in names or []):
            about_specs = {"--scale": scale, "--set": sets, "--seeds": seeds}
            commands.refuse(about_specs, "says which cells of a spec are meant: name the spec, or leave it out")
        load = commands.loader(scale, sets, seeds, results)
        about_tables = {"--group-by": group_by, "--transpose": transpose, "--digits": digits, "--published": published}
        content = commands.export(names or [], load, chosen, commands.words(columns), about_tables)
        commands.write_output(content, output)


def main() -> None:
    """Run the command line; ``bench.start`` calls it."""
    plain = sys.stdout
    sys.stdout = Stdout(plain)
    try:
        app(prog_name="run_bench.py")
    except OutputError as error:  # from the parser's own output, such as --help
        say(str(error))
        sys.exit(RUN_CODES[OutputError])
    finally:
        sys.stdout = plain

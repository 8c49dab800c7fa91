"""The command line: arguments, exit codes, how errors are printed. ``bench.commands`` does what is asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bench import __version__, subcommands
from bench.endings import Stdout, endings, say
from bench.errors import BenchError, OutputError, RecordError, SpecError

EPILOG = """\b
Examples:
  run_bench.py specs/table1.yaml                       run every cell, write results/ and reports/
  run_bench.py specs/table1.yaml --list                show the cells and which are done; run nothing
  run_bench.py specs/table1.yaml --only 'F-T-LoRA*'    run some cells only
  run_bench.py specs/table1.yaml --set train.steps=20 --seeds 1,2,3
  run_bench.py specs/table?.yaml --scale demo --json    several specs, records as JSON on stdout
  run_bench.py specs/table1.yaml --report-only         tables and plots anew from results/
  run_bench.py --methods                               every method that a spec can name
  run_bench.py specs/table1.yaml --estimate            parameters, GPU memory and FLOPs of every cell, without a run
  run_bench.py specs/table1.yaml --estimate --budget 24GiB --max-batch 24GiB
  run_bench.py specs/table1.yaml --budget 24GiB        run the cells that fit; the others become records, too

\b
Commands of their own, each with its --help:
  run_bench.py compare A B                             what changed between two sets of records beyond noise
  run_bench.py compare --published specs/table1.yaml   which of a paper's numbers are reproduced
  run_bench.py export results -o all.parquet           every record as one row (or .csv)
  run_bench.py export specs/table1.yaml -o view.tex --columns vit,rank,memory,global --group-by vit

\b
--set takes any dotted place of the spec; its value is YAML:
  --set train.optimizer.lr=1e-4  --set run.device=cpu  --set model.weights=null
  --set 'matrix.axes.methods.LoRA.r=[4, 8, 16]'

\b
A second run continues the first: finished cells whose settings, data, weights and device are unchanged are
skipped. --fresh runs them again; --forget --scale NAME removes what is stored of them (a records file that is
merely deleted comes back from the job folders). Ctrl-C once stops cleanly and keeps what is done, twice stops at once.

\b
--estimate needs no GPU, data or weights. It is of the spec as it stands (scale paper) unless --scale is given, and
for the GPU generation of --gpu, else of the GPU that is visible, else Ampere. Sizes have a unit: 24GiB, 24GB, 512MiB
(GiB = 2^30 bytes, GB = 10^9). Cells that a --budget kept from running run as soon as it allows, or is left out.

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


class _Dispatching(TyperCommand):
    """Hands over to a subcommand if the first argument is one's name; a spec file of such a name is ``./compare``."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        if arguments and arguments[0] in subcommands.NAMES:
            chosen, *arguments = arguments
            command = subcommands.command(chosen)
            return command.main(arguments, f"{prog_name or 'run_bench.py'} {chosen}", *rest, **extra)
        return super().main(arguments, prog_name, *rest, **extra)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(cls=_Dispatching, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def command(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC", help="Spec files, e.g. specs/table1.yaml.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A scale of the spec, such as paper or demo. Without it: paper where a CUDA device, the data and "
            "the weights are there, else demo; the first line printed says which and why.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Only cells whose label matches; repeatable. The report always has all cells."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PLACE=VALUE", help="Override one place of the spec; repeatable."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="1,2,3", help="Run every cell once with each of these seeds.")
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How cells get a process. local: a worker process each; inline: in this process, for debugging.",
        ),
    ] = "local",
    results: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the records.")] = Path("results"),
    reports: Annotated[Path, typer.Option(metavar="DIR", help="Folder of tables and plots.")] = Path("reports"),
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; write the report from the records that are there.")
    ] = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="Run nothing; list the cells and the status of their records.")
    ] = False,
    estimate: Annotated[
        bool,
        typer.Option(
            "--estimate", help="Run nothing; show what every cell costs: parameters, GPU memory, FLOPs, adapter size."
        ),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="GPU memory there is, e.g. 24GiB. A run leaves out cells that cannot fit, --estimate marks them.",
        ),
    ] = None,
    max_batch: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="With --estimate: find the largest training batch that fits this memory."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="GPU generation that estimates are for: volta, turing, ampere, ada, hopper or blackwell.",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished cells again.")] = False,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Run nothing; remove the records and job folders (predictions, logs, adapters) of the cells, of those "
            "that --only means, at the scale that --scale must name. Asks nothing, and there is no way back.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="List every method a spec can name, where it applies and what it needs.")
    ] = False,
    print_schema: Annotated[
        bool,
        typer.Option(
            "--print-schema",
            help="Print the JSON schemas of specs and records; with `spec` or `record` in place of SPEC, that one.",
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version, and which library versions were tested; with --json, as JSON."
        ),
    ] = False,
) -> None:
    """Freeze, train or adapt each part of a model, and see what every choice costs and wins.

    Runs the cells of each SPEC; writes records to results/, tables and plots to reports/.
    """
    with endings(_code_of):
        if version:
            typer.echo(_version(as_json=as_json))
        elif methods:
            from bench.method_list import print_methods

            print_methods(as_json=as_json)
        elif print_schema:
            typer.echo(_schema(specs or []), nl=False)
        else:
            if report_only and not all((reports / Path(spec).stem / "pareto.png").is_file() for spec in specs or []):
                from bench.report import warm_up

                warm_up()
            from bench import commands

            options = commands.Options(
                scale=scale,
                sets=sets or [],
                seeds=subcommands.parse_seeds(seeds),
                only=only or [],
                executor=executor,
                results=results,
                reports=reports,
                report_only=report_only,
                list_only=list_only,
                fresh=fresh,
                forget=forget,
                as_json=as_json,
                estimate=estimate,
                budget_bytes=_size(budget, "--budget"),
                max_batch_bytes=_size(max_batch, "--max-batch"),
                gpu=gpu,
            )
            raise typer.Exit(commands.bench(specs or [], options))


def main() -> None:
    """What ``bench.start`` calls."""
    plain = sys.stdout
    sys.stdout = Stdout(plain)
    try:
        app(prog_name="run_bench.py")
    except OutputError as error:  # of what the parser prints, such as --help
        say(str(error))
        sys.exit(1)
    finally:
        sys.stdout = plain


def _code_of(error: BenchError) -> int:
    return 1 if isinstance(error, RecordError | OutputError) else 2


def _size(text: str | None, option: str) -> int | None:
    from bench.units import parse_size

    return None if text is None else parse_size(text, option)


def _version(*, as_json: bool) -> str:
    """This version, the installed libraries and those that were tested."""
    from bench import environment, versions

    installed = environment.versions()
    if as_json:
        return json.dumps({"version": __version__, "installed": installed, "tested": versions.describe()}, indent=2)
    lines = [
        f"  {package} {installed.get(package, 'not installed')} (tested: {oldest} to {versions.NEWEST[package]})"
        for package, oldest in versions.OLDEST.items()
    ]
    python = f"  python {installed['python']} (tested: {', '.join(versions.PYTHON)})"
    return "\n".join([f"peft-freeze-bench {__version__}", python, *lines])


def _schema(words: Sequence[str]) -> str:
    from bench.spec.schema import schema_text

    if len(words) > 1 or any(word not in ("spec", "record") for word in words):
        raise SpecError(f"--print-schema {' '.join(words)}: write --print-schema, --print-schema spec or ... record")
    return schema_text(words[0] if words else None)

"""What the commands do with their arguments: run and its modes on sweeps, ``compare`` and ``export`` on records."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import environment, metrics, registry, versions
from bench.endings import say
from bench.errors import INTERRUPTED, SpecError
from bench.estimate.budget import assumed_gpu, count_parameters
from bench.files import write_atomic
from bench.format import printable
from bench.records.record import CellRecord, Status
from bench.registry import did_you_mean
from bench.report import check_folder
from bench.spec.cell import Cell
from bench.sweep import Purpose, Sweep, estimate_costs
from bench.units import parse_size

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.analysis.tolerances import CompareOptions

Load = Callable[[Path, Purpose], Sweep]
"""Function that loads a spec file with the options of the command line."""
RECORD_FORMATS = ("csv", "parquet")
TABLE_FORMATS = ("md", "tex")
_CONFLICTS = {
    "--estimate": (("--report-only", "--list", "--fresh"), "--estimate runs nothing"),
    "--budget": (("--report-only", "--list"), "nothing is run or estimated"),
    "--forget": (("--report-only", "--list", "--fresh", "--estimate", "--budget"), "--forget only removes"),
}
"""Option -> options that it excludes, and the reason."""
_PURPOSES: Mapping[str, Purpose] = {
    "--forget": "forget",
    "--list": "list",
    "--report-only": "report",
    "--estimate": "estimate",
}
_CATALOGUE_TITLES = {
    "type": "Methods of this package, named by `type`",
    "peft_type": "Methods of the installed peft, named by `peft_type`; fields as in its configuration class",
}


def loader(scale: str | None, sets: Sequence[str] | None, seeds: str | None, results: Path, **others: Any) -> Load:
    """The function that loads sweeps with these options. Raises SpecError for seeds that are no numbers."""
    numbers = None
    if seeds is not None:
        listed = [word.strip() for word in seeds.split(",")]
        if not all(word.isascii() and word.isdigit() for word in listed):
            raise SpecError(f"--seeds {seeds!r}: write whole numbers with commas between, e.g. --seeds 1,2,3")
        numbers = [int(word) for word in listed]
    return partial(Sweep.load, scale=scale, sets=sets or (), seeds=numbers, results=results, **others)


def bench(
    specs: Sequence[str], load: Load, given: Mapping[str, Any], *, scale: str | None, executor: str, as_json: bool
) -> int:
    """Run, list, report, estimate or forget the cells of specs, by the given options; the exit code.

    Raises BenchError before anything runs if an option or a spec is wrong.
    """
    for_ = _purpose(given, scale=scale, executor=executor)
    budget, max_batch = (
        None if given[option] is None else parse_size(given[option], option) for option in ("--budget", "--max-batch")
    )
    gpu, show = None, not as_json
    if for_ == "estimate" or budget is not None:
        gpu = assumed_gpu(given["--gpu"])
        say(f"estimates: for {gpu} ({gpu.reason})")
    sweeps = _load_sweeps(specs, for_, load)

    def act(sweep: Sweep) -> tuple[int, dict[str, Any]]:
        match for_:
            case "list":
                return 0, sweep.list_cells(show=show)
            case "forget":
                return 0, sweep.forget()
            case "report":
                return sweep.report_stored(show=show)
        limit = None if gpu is None or budget is None else (gpu, budget)
        return sweep.run(executor=executor, fresh=given["--fresh"], budget=limit, show=show)

    if gpu is not None and for_ == "estimate":
        code, shown = estimate_costs(sweeps, gpu, budget_bytes=budget, max_batch_bytes=max_batch, show=show)
    else:
        code, shown = 0, list[dict[str, Any]]()
        for sweep in sweeps:
            sweep.introduce()
            ended, result = act(sweep)
            code, shown = max(code, ended), [*shown, result]
            if code == INTERRUPTED:
                break
    if as_json:
        print_json(shown, names=specs)
    return code


def compare_rules(alpha: float, tolerances: Sequence[str], shown: Sequence[str]) -> CompareOptions:
    """Options of a comparison. Raises SpecError for a wrong level, an unknown metric or a wrong tolerance."""
    from bench.analysis.tolerances import CompareOptions, parse

    if not 0 < alpha < 1:
        raise SpecError(f"--alpha {alpha:g}: write a probability between 0 and 1, such as 0.05")
    return CompareOptions(
        alpha=alpha, tolerances=parse(tolerances), metrics=tuple(metrics.get(name).name for name in shown)
    )


def compare_records(
    names: Sequence[str],
    rules: CompareOptions,
    *,
    against: str | None,
    only: Sequence[str],
    allow_missing: bool,
    everything: bool,
    as_json: bool,
) -> int:
    """Print what changed between two sets of records, or between one cell and the others; the exit code."""
    from rich.console import Console

    from bench.analysis.compare import compare, compare_with_cell
    from bench.report.compare import comparison_json, print_comparison
    from bench.sources import open_records

    if against is not None and (len(names) != 1 or allow_missing):
        raise SpecError(
            "--against compares the cells of one set of records with one of them: "
            "run_bench.py compare results/table1 --against 'T-T-LoRA rank=4', without --allow-missing"
        )
    if against is None and len(names) != 2:
        raise SpecError(
            f"compare takes two sets of records, A and B, and got {len(names)}: "
            "run_bench.py compare main:results/gallery results/gallery; see compare --help. "
            "A spec file that is called compare runs as ./compare"
        )
    with ExitStack() as stack:
        sources = [stack.enter_context(open_records(name)) for name in names]
        if against is not None:
            comparison = compare_with_cell(sources[0], against, rules, only=only)
        else:
            comparison = compare(sources[0], sources[1], rules, only=only, allow_missing=allow_missing)
        if as_json:
            print_json([comparison_json(comparison)], names=["A B"])
        else:
            print_comparison(Console(), comparison, everything=everything)
    return comparison.exit_code


def compare_published(names: Sequence[str], load: Load, rules: CompareOptions, *, as_json: bool) -> int:
    """Print verdicts on the numbers that specs say were published; the exit code."""
    from rich.console import Console

    from bench.analysis.predictions import ExampleScores
    from bench.analysis.reproduction import reproduce, without_counts
    from bench.analysis.rows import rows_of
    from bench.report.compare import print_reproduction, reproduction_json

    if not names:
        raise SpecError("--published: name a spec that has published numbers, e.g. specs/table1.yaml")
    reproductions = []
    for name in names:
        sweep = load(Path(name), "published")
        if sweep.spec.published is None:
            raise SpecError(f"{name}: the spec has no published numbers; add `published:` with `source` and `rows`")
        records = sweep.records()
        stale = sweep.stale(records)
        uncounted = without_counts(rows_of(sweep.spec, sweep.cells, records, stale))
        counted = _counted(uncounted, {key: record for key, record in records.items() if key not in stale})
        stale = {key: why for key, why in stale.items() if key not in counted}
        rows = rows_of(sweep.spec, sweep.cells, {**records, **counted}, stale)
        examples, count = ExampleScores(sweep.results), len(uncounted)
        reproductions.append(reproduce(sweep.spec, sweep.scale, rows, examples, rules.tolerances, counted=count))
    if as_json:
        print_json([reproduction_json(reproduction) for reproduction in reproductions], names=names)
    else:
        for reproduction in reproductions:
            print_reproduction(Console(), reproduction)
    return max(reproduction.exit_code for reproduction in reproductions)


def export_format(names: Sequence[str], output: Path | None, named: str | None) -> str:
    """The format by its name, else by the file's suffix. Raises SpecError for one that does not suit the names."""
    known = (*RECORD_FORMATS, *TABLE_FORMATS)
    chosen = named or (output.suffix.lstrip(".").lower() if output else "")
    if not chosen:
        raise SpecError(
            f"name a file with -o, such as records.parquet or table.tex, or a --format ({', '.join(known)})"
        )
    if chosen not in known:
        what = f"--format {named}" if named else f"-o {output}"
        raise SpecError(f"{printable(what)}: no such format{did_you_mean(chosen, known)}")
    if chosen == "parquet" and output is None:
        raise SpecError("--format parquet: Parquet is no text; name a file with -o records.parquet")
    if not names:
        raise SpecError(
            "name what to export: records (results, results/table1/demo.jsonl) or a spec; see export --help. "
            "A spec file that is called export runs as ./export"
        )
    if chosen in TABLE_FORMATS and (len(names) != 1 or not is_spec(names[0])):
        raise SpecError(f"a table ({', '.join(TABLE_FORMATS)}) is of one spec: name its file, e.g. specs/table1.yaml")
    return chosen


def export(
    names: Sequence[str], load: Load, form: str, columns: Sequence[str], about_tables: Mapping[str, Any]
) -> bytes:
    """A spec's table as Markdown or LaTeX, or records as CSV or Parquet, one row each.

    ``about_tables``: options of ``bench.report.view.Wanted``. Raises SpecError if they were given for records.
    """
    if form in TABLE_FORMATS:
        from bench.analysis.predictions import ExampleScores
        from bench.report.view import Wanted, latex_text, markdown_text, view

        sweep = load(Path(names[0]), "export")
        records, fields = sweep.records(), {o.removeprefix("--").replace("-", "_"): v for o, v in about_tables.items()}
        wanted = Wanted(columns=columns, **fields)
        stale, examples = sweep.stale(records), ExampleScores(sweep.results)
        grid = view(sweep.spec, sweep.scale, sweep.cells, records, wanted, examples, stale)
        return (latex_text(grid) if form == "tex" else markdown_text(grid)).encode()
    from bench.analysis.frame import csv_bytes, parquet_bytes

    refuse(about_tables, f"is for tables ({', '.join(TABLE_FORMATS)}); {form} has every record as it is")
    frame = frame_of(names, load, columns)
    return csv_bytes(frame) if form == "csv" else parquet_bytes(frame)


def frame_of(names: Sequence[str], load: Load, columns: Sequence[str] = ()) -> DataFrame:
    """Records of all sources and specs, one row each; ``columns``: names or globs, empty: all."""
    from bench.analysis.frame import to_frame

    with ExitStack() as stack:
        read = [pair for name in names for pair in _records_of(name, load, stack)]
        return to_frame([record for record, _ in read], columns, [why for _, why in read])


def write_output(content: bytes, output: Path | None) -> None:
    """Write the file, or print the text without one. Raises SpecError if the file cannot be written."""
    if output is None:
        sys.stdout.write(content.decode())
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(output, content)
    except OSError as problem:
        raise SpecError(f"-o {printable(str(output))}: cannot be written: {problem.strerror}") from None
    print(f"wrote {printable(str(output))}", file=sys.stderr)


def refuse(given: Mapping[str, object], why: str) -> None:
    """Raise SpecError, the option's name and ``why``, for the first option that is set."""
    for option, value in given.items():
        if value:
            raise SpecError(f"{option} {why}")


def words(text: str | None) -> list[str]:
    """``a, b`` -> ``["a", "b"]``."""
    return [word for part in (text or "").split(",") if (word := part.strip())]


def is_spec(name: str) -> bool:
    """Whether a source of records is a spec file."""
    return name.endswith((".yaml", ".yml"))


def schema_text(names: Sequence[str]) -> str:
    """JSON schemas of specs and records, or the named one. Raises SpecError for another name."""
    from bench.spec.schema import schema_text

    if len(names) > 1 or any(name not in ("spec", "record") for name in names):
        raise SpecError(f"--print-schema {' '.join(names)}: write --print-schema, --print-schema spec or ... record")
    return schema_text(names[0] if names else None)


def print_json(values: Sequence[Any], *, names: Sequence[str]) -> None:
    """Print one object for one name, else the list of them."""
    print(json.dumps(values[0] if len(names) == 1 else values, allow_nan=False), flush=True)


def print_methods(*, as_json: bool) -> None:
    """Print every method that a spec can name, of this package and of the installed peft."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from bench.methods.common.catalogue import catalogue

    entries = catalogue()
    if as_json:
        print(json.dumps([asdict(entry) | {"applies_to": entry.applies_to} for entry in entries], default=str))
        return
    console = Console()
    for key, group in groupby(entries, lambda entry: entry.key):
        console.print(Text(_CATALOGUE_TITLES[key], style="bold underline"))
        for entry in group:
            needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
            console.print(Text.assemble((entry.name, "bold"), f"  {entry.kind}, on {entry.applies_to}{needs}"))
            console.print(Padding(Text(entry.summary), (0, 0, 0, 4)))
        console.print()


def version_text(*, as_json: bool) -> str:
    """This version, and the installed and tested versions of libraries."""
    installed = environment.versions()
    if as_json:
        return json.dumps(
            {"version": versions.__version__, "installed": installed, "tested": versions.describe()}, indent=2
        )
    lines = [
        f"  {package} {installed.get(package, 'not installed')} (tested: {oldest} to {versions.NEWEST[package]})"
        for package, oldest in versions.OLDEST.items()
    ]
    python = f"  python {installed['python']} (tested: {', '.join(versions.PYTHON)})"
    return "\n".join([f"peft-freeze-bench {versions.__version__}", python, *lines])


def _purpose(given: Mapping[str, Any], *, scale: str | None, executor: str) -> Purpose:
    """The purpose by the options. Raises SpecError for options that exclude each other."""
    if executor not in registry.names("executors"):
        raise SpecError(f"--executor {executor!r} is not known{did_you_mean(executor, registry.names('executors'))}")
    for option, (others, why) in _CONFLICTS.items():
        for other in others:
            if given[option] and given[other]:
                raise SpecError(f"{option} and {other} do not go together: {why}; leave one out")
    if given["--forget"] and scale in (None, "auto"):
        raise SpecError(
            "--forget needs --scale NAME: which scale a run takes without one depends on what is on the machine; "
            "name the one whose cells are to be removed"
        )
    if given["--max-batch"] and not given["--estimate"]:
        raise SpecError("--max-batch goes with --estimate: add it")
    if given["--gpu"] and not given["--estimate"] and not given["--budget"]:
        raise SpecError("--gpu says what an estimate is for: add --estimate or --budget")
    return next((for_ for option, for_ in _PURPOSES.items() if given[option]), "run")


def _load_sweeps(specs: Sequence[str], for_: Purpose, load: Load) -> list[Sweep]:
    if for_ not in ("list", "report"):  # stored records can be read with any version of the libraries
        versions.check()
    if for_ == "report":
        gc.disable()  # a report ends soon, with little garbage; collecting it takes a tenth of the time
    if not specs:
        known = ", ".join(str(path) for path in sorted(Path("specs").glob("*.yaml"))) or "none under specs/"
        raise SpecError(f"name a spec to run, e.g. run_bench.py specs/table1.yaml (known: {known}); see --help")
    sweeps = [load(Path(spec), for_) for spec in specs]
    first: dict[str, str] = {}
    for path, sweep in zip(specs, sweeps, strict=True):
        if (name := sweep.spec.name) in first:
            raise SpecError(f"{path} and {first[name]} are both named {name!r}; give one another `name:`")
        first[name] = path
    if for_ in ("run", "report"):  # an unwritable folder is known now, not after hours of training
        for sweep in sweeps:
            check_folder(sweep.reports)
    return sweeps


def _counted(cells: Sequence[Cell], records: Mapping[str, CellRecord]) -> dict[str, CellRecord]:
    """Records of these cells, by id, with the parameters of estimates; ``records``: those that are not stale."""
    counts = count_parameters(cells) if cells else {}  # even without cells it would start a process
    counted = {}
    for cell in cells:
        record = records.get(cell.cell_id) or CellRecord(
            **cell.identity(), status=Status.SKIPPED, environment={}, started_at="", finished_at=""
        )
        counted[cell.cell_id] = record.model_copy(update={"estimate": counts[cell.cell_id]})
    return counted


def _records_of(name: str, load: Load, stack: ExitStack) -> Iterator[tuple[CellRecord, str | None]]:
    """Records, each with the reason why it is stale; null if it is not, or if the source is no spec."""
    from bench.sources import open_records

    if not is_spec(name):
        yield from ((record, None) for record in stack.enter_context(open_records(name)).records)
        return
    sweep = load(Path(name), "export")
    records = sweep.records()
    if not records:
        raise SpecError(f"{printable(name)}: no records of its cells at scale {sweep.scale} under {sweep.results}")
    stale = sweep.stale(records)
    yield from ((record, stale.get(key)) for key, record in records.items())

"""What ``run_bench.py export`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import SpecError
from bench.format import printable
from bench.records.record import CellRecord
from bench.registry import did_you_mean
from bench.report.view import Wanted

SPEC_ENDINGS = (".yaml", ".yml")
RECORDS = ("csv", "parquet")
TABLES = ("md", "tex")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Its arguments."""

    names: list[str]
    output: Path | None = None
    format: str | None = None
    wanted: Wanted = field(default_factory=Wanted)
    results: Path = Path("results")
    scale: str | None = None
    sets: Sequence[str] = ()
    seeds: list[int] | None = None

    def ending(self) -> str:
        """The format: as asked for, or as the file's name ends. Raises SpecError for one that is not known."""
        known = (*RECORDS, *TABLES)
        named = self.format or (self.output.suffix.lstrip(".").lower() if self.output else "")
        if not named:
            raise SpecError(
                f"name a file with -o, such as records.parquet or table.tex, or a --format ({', '.join(known)})"
            )
        if named not in known:
            what = f"--format {self.format}" if self.format else f"-o {self.output}"
            raise SpecError(f"{printable(what)}: no such format{did_you_mean(named, known)}")
        if named == "parquet" and self.output is None:
            raise SpecError("--format parquet: Parquet is no text; name a file with -o records.parquet")
        return named

    def check(self) -> None:
        """Raises SpecError for options that do not go together."""
        ending = self.ending()
        if not self.names:
            raise SpecError(
                "name what to export: records (results, results/table1/demo.jsonl) or a spec; see export --help. "
                "A spec file that is called export runs as ./export"
            )
        specs = [name for name in self.names if name.endswith(SPEC_ENDINGS)]
        if ending in TABLES and (len(self.names) != 1 or not specs):
            raise SpecError(f"a table ({', '.join(TABLES)}) is of one spec: name its file, e.g. specs/table1.yaml")
        of_specs: dict[str, object] = {"--scale": self.scale, "--set": self.sets, "--seeds": self.seeds}
        for option, given in of_specs.items():
            if given and not specs:
                raise SpecError(f"{option} says which cells of a spec are meant: name the spec, or leave it out")
        of_tables: dict[str, object] = {
            "--group-by": self.wanted.group_by,
            "--transpose": self.wanted.transpose,
            "--digits": self.wanted.digits,
            "--published": self.wanted.published,
        }
        for option, given in of_tables.items():
            if given and ending not in TABLES:
                raise SpecError(f"{option} is for tables ({', '.join(TABLES)}); {ending} has every record as it is")


def run(options: Options) -> None:
    """Write the file, or print it. Raises BenchError if there is nothing to export or it cannot be written."""
    options.check()
    ending = options.ending()
    content = _table(options, ending) if ending in TABLES else _records(options, ending)
    if options.output is None:
        sys.stdout.write(content.decode())
        return
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        draft = options.output.with_name(f".{options.output.name}.{os.getpid()}")
        try:
            draft.write_bytes(content)
            draft.replace(options.output)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as problem:
        raise SpecError(f"-o {printable(str(options.output))}: cannot be written: {problem.strerror}") from None
    print(f"wrote {printable(str(options.output))}", file=sys.stderr)


def _table(options: Options, ending: str) -> bytes:
    from bench.report.view import view
    from bench.report.view_render import latex_text, markdown_text
    from bench.sources import cells_of

    name = Path(options.names[0])
    of = cells_of(name, results=options.results, scale=options.scale, sets=options.sets, seeds=options.seeds)
    grid = view(of, options.wanted)
    return (latex_text(grid) if ending == "tex" else markdown_text(grid)).encode()


def _records(options: Options, ending: str) -> bytes:
    from bench.analysis.flat import flatten
    from bench.analysis.flat_files import csv_bytes, parquet_bytes

    with ExitStack() as stack:
        read = list(_read(options, stack))
        flat = flatten([record for record, _ in read], options.wanted.columns, [why for _, why in read])
    return csv_bytes(flat) if ending == "csv" else parquet_bytes(flat)


def _read(options: Options, stack: ExitStack) -> Iterator[tuple[CellRecord, str | None]]:
    """Records, each with why it is stale; null where there is no spec to tell it by."""
    from bench.sources import cells_of, opened

    for name in options.names:
        if not name.endswith(SPEC_ENDINGS):
            yield from ((record, None) for record in stack.enter_context(opened(name)).records)
            continue
        of = cells_of(Path(name), results=options.results, scale=options.scale, sets=options.sets, seeds=options.seeds)
        if not of.records:
            raise SpecError(f"{printable(name)}: no records of its cells at scale {of.scale} under {of.folder}")
        for cell in of.cells:
            if cell.cell_id in of.records:
                yield of.records[cell.cell_id], of.stale.get(cell.cell_id)

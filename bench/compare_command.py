"""What ``run_bench.py compare`` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.compare.changes import Rules
from bench.analysis.compare.tolerance import parse
from bench.errors import SpecError
from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Its arguments."""

    names: list[str]
    published: bool = False
    against: str | None = None
    alpha: float = 0.05
    tolerances: Sequence[str] = ()
    metrics: Sequence[str] = ()
    only: Sequence[str] = ()
    allow_missing: bool = False
    everything: bool = False
    as_json: bool = False
    results: Path = Path("results")
    scale: str | None = None
    sets: Sequence[str] = ()
    seeds: list[int] | None = None

    def check(self) -> None:
        """Raises SpecError for options that do not go together."""
        records = {
            "--against": self.against,
            "--metrics": self.metrics,
            "--only": self.only,
            "--allow-missing": self.allow_missing,
            "--all": self.everything,
        }
        specs = {"--scale": self.scale, "--set": self.sets, "--seeds": self.seeds}
        for option, given in (records if self.published else specs).items():
            if given:
                belongs = "two sets of records" if self.published else "a spec's records with --published"
                raise SpecError(f"{option} is for the comparison of {belongs}; leave it out")
        if self.published and not self.names:
            raise SpecError("--published: name a spec that has published numbers, e.g. specs/table1.yaml")
        if self.against is not None and (len(self.names) != 1 or self.allow_missing):
            raise SpecError(
                "--against compares the cells of one set of records with one of them: "
                "run_bench.py compare results/table1 --against 'T-T-LoRA rank=4', without --allow-missing"
            )
        if not self.published and self.against is None and len(self.names) != 2:
            raise SpecError(
                f"compare takes two sets of records, A and B, and got {len(self.names)}: "
                "run_bench.py compare main:results/gallery results/gallery; see compare --help. "
                "A spec file that is called compare runs as ./compare"
            )
        if not 0 < self.alpha < 1:
            raise SpecError(f"--alpha {self.alpha:g}: write a probability between 0 and 1, such as 0.05")


def run(options: Options) -> int:
    """Print the comparison; returns the exit code. Raises BenchError if there is nothing to compare."""
    options.check()
    return _published(options) if options.published else _records(options)


def _records(options: Options) -> int:
    from bench.analysis.compare import compare, compare_with_cell
    from bench.report.compare import comparison_json, print_comparison
    from bench.sources import opened

    rules = Rules(alpha=options.alpha, tolerances=parse(options.tolerances), metrics=_known(options.metrics))
    with ExitStack() as stack:
        sources = [stack.enter_context(opened(name)) for name in options.names]
        if options.against is not None:
            found = compare_with_cell(sources[0], options.against, rules, only=options.only)
        else:
            found = compare(sources[0], sources[1], rules, only=options.only, allow_missing=options.allow_missing)
        if options.as_json:
            _print_json(comparison_json(found))
        else:
            print_comparison(_console(), found, everything=options.everything)
    return found.exit_code


def _published(options: Options) -> int:
    from bench.analysis.compare.published import reproduce, without_counts
    from bench.analysis.predictions import Outcomes
    from bench.analysis.rows import group_cells
    from bench.report.compare import print_reproduction, reproduction_json
    from bench.sources import cells_of

    tolerances, found = parse(options.tolerances), []
    for name in options.names:
        scale = _scale(Path(name), options)
        of = cells_of(Path(name), results=options.results, scale=scale, sets=options.sets, seeds=options.seeds)
        if of.spec.published is None:
            raise SpecError(f"{name}: the spec has no published numbers; add `published:` with `source` and `rows`")
        uncounted = without_counts(group_cells(of.spec, of.cells, of.records, of.stale))
        counted = _counted(uncounted, {key: record for key, record in of.records.items() if key not in of.stale})
        stale = {key: why for key, why in of.stale.items() if key not in counted}
        groups = group_cells(of.spec, of.cells, {**of.records, **counted}, stale)
        outcomes = Outcomes(of.folder)
        found.append(reproduce(of.spec, of.scale, groups, outcomes, tolerances, counted=len(uncounted)))
    if options.as_json:
        shown = [reproduction_json(one) for one in found]
        _print_json(shown[0] if len(shown) == 1 else shown)
    else:
        for one in found:
            print_reproduction(_console(), one)
    return max(one.exit_code for one in found)


def _scale(path: Path, options: Options) -> str:
    """The named scale; else the first that may be the published setting and has records; else the spec as it stands."""
    from bench.spec.load import read_spec

    if options.scale not in (None, "auto"):
        return options.scale
    source = read_spec(path)
    published = source.resolve(source.base_scale).spec.published
    scales = [source.base_scale, *(published.scales if published else [])]
    folder = options.results / source.name
    return next((scale for scale in scales if (folder / f"{scale}.jsonl").is_file()), source.base_scale)


def _counted(cells: Sequence[Cell], records: Mapping[str, CellRecord]) -> dict[str, CellRecord]:
    """The records of these cells with the parameters of their estimates; of those without a record that counts one that
    has nothing else. ``records``: those that count. Starts no process without cells."""
    from bench.estimates import count_parameters

    counts = count_parameters(cells).estimates if cells else {}
    found = {}
    for cell in cells:
        record = records.get(cell.cell_id) or CellRecord(
            **cell.identity(), status=Status.SKIPPED, environment={}, started_at="", finished_at=""
        )
        found[cell.cell_id] = record.model_copy(update={"estimate": counts[cell.cell_id]})
    return found


def _known(names: Sequence[str]) -> tuple[str, ...]:
    from bench import metrics

    return tuple(metrics.get(name).name for name in names)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, allow_nan=False)
    print(flush=True)

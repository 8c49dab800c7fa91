"""A sweep: a spec at one scale with its cells, folders and records, which commands list, run or report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench import environment, files, registry
from bench.endings import say
from bench.errors import BenchError, OutputError
from bench.estimate.budget import AssumedGpu, check_budget, estimate
from bench.execution import inputs, jobs, runner
from bench.execution.progress import Reporter
from bench.plugins.settings import DataSettings, ModelSettings
from bench.records.record import CellRecord
from bench.records.store import ResultsFile
from bench.spec.cell import Cell, expand, select, target_lines
from bench.spec.load import ResolvedSpec, SpecSource, read_spec
from bench.spec.sections import Spec
from bench.units import size_text

Purpose = Literal["run", "list", "forget", "report", "estimate", "export", "published"]
"""Purpose of loading a sweep; ``published``: to compare its records with published numbers."""
DEMO = "demo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A spec at one scale."""

    spec: Spec
    scale: str
    reason: str
    """Why this scale."""
    cells: list[Cell]
    selected: list[Cell]
    """Cells that ``--only`` matches; all without it."""
    results: Path
    """Folder of the spec's results."""
    reports: Path

    @classmethod
    def load(
        cls,
        path: Path,
        for_: Purpose,
        *,
        scale: str | None = None,
        sets: Sequence[str] = (),
        seeds: Sequence[int] | None = None,
        only: Sequence[str] = (),
        results: Path = Path("results"),
        reports: Path = Path("reports"),
    ) -> Sweep:
        """Read a spec file. Raises SpecError for a wrong spec, scale, override or label."""
        source = read_spec(path)
        scale, reason = resolve_scale(source, scale, for_=for_, sets=sets, results=results / source.name)
        resolved = source.resolve(scale, sets, seeds, alone=for_ == "report")
        cells = expand(resolved)
        return cls(
            spec=resolved.spec,
            scale=scale,
            reason=reason,
            cells=cells,
            selected=select(cells, only),
            results=results / resolved.spec.name,
            reports=reports / resolved.spec.name,
        )

    def introduce(self) -> None:
        """Print the scale, and the default target modules of methods for which the spec names none."""
        say(f"{self.spec.name}: scale {self.scale} ({self.reason})")
        for line in target_lines(self.selected):
            say(f"{self.spec.name}: {line}")

    def records(self) -> dict[str, CellRecord]:
        """The stored record of each cell that has one, by ``cell_id``. Raises RecordError if they cannot be read."""
        return self._of_cells(ResultsFile(self.results / f"{self.scale}.jsonl").read())

    def stale(self, records: Mapping[str, CellRecord]) -> dict[str, str]:
        """See ``bench.execution.inputs.stale``."""
        return inputs.stale(self.cells, records)

    def as_json(self, key: str, value: list[dict[str, Any]]) -> dict[str, Any]:
        """The object of ``--json``."""
        return {"spec": self.spec.name, "scale": self.scale, key: value}

    def list_cells(self, *, show: bool) -> dict[str, Any]:
        """Selected cells as JSON, each with its status and why a run would execute it again; printed with ``show``."""
        records = self.records()
        known = inputs.inputs_known([cell for cell in self.selected if cell.cell_id in records], any_device=False)
        width = max(len(cell.label) for cell in self.selected)
        listed = []
        for cell in self.selected:
            record = records.get(cell.cell_id)
            status = str(record.status) if record else None
            to_do = inputs.why_not_done(record, known[cell.cell_id]) if record else "not run"
            if show:
                print(f"{cell.label:<{width}}  {cell.cell_id}  {to_do or status}")
            shown = cell.model_dump(mode="json", include={"cell_id", "label", "labels", "parts", "seed"})
            listed.append(shown | {"status": status, "to_do": to_do})
        return self.as_json("cells", listed)

    def forget(self) -> dict[str, Any]:
        """Remove records and job folders of the selected cells; the cells that had any, as JSON."""
        gone = jobs.forget(self.selected, results=self.results, warn=lambda text: say(f"warning: {text}"))
        cells = f"{len(self.selected)} cells under {self.results}"
        say(f"{self.spec.name}: removed {gone} of {cells}; reports stay as they are")
        forgotten = [cell for cell in self.selected if cell.cell_id in gone.cell_ids]
        return self.as_json("forgotten", [{"cell_id": cell.cell_id, "label": cell.label} for cell in forgotten])

    def run(
        self, *, executor: str, fresh: bool, budget: tuple[AssumedGpu, int] | None, show: bool
    ) -> tuple[int, dict[str, Any]]:
        """Run the selected cells that are not done, then report; the exit code, and the records as JSON.

        ``budget``: the GPU and its memory in bytes; cells that cannot fit are skipped.
        """
        reporter, check = Reporter(), None
        if budget is not None:
            check = partial(check_budget, gpu=budget[0], budget_bytes=budget[1], warn=reporter.message)
        with contextlib.redirect_stdout(sys.stderr):  # the inline executor's libraries print into this process
            summary = runner.run(
                self.selected,
                results=self.results,
                executor=executor,
                fresh=fresh,
                reporter=reporter,
                check_budget=check,
            )
        say(f"{self.spec.name}: {summary}")
        records = self._of_cells(summary.stored)
        if summary.interrupted:
            say("interrupted: finished cells are kept; the same command goes on where this one stopped")
            return summary.exit_code, self._records_as_json(records, self.stale(records))
        code, shown = self.report(records, show=show)
        return max(summary.exit_code, code), shown

    def report_stored(self, *, show: bool) -> tuple[int, dict[str, Any]]:
        """``report`` of the stored records."""
        from bench.report import warmed_up

        with warmed_up(self.reports):
            records = self.records()
            if not records:
                say(f"no records of these cells under {self.results}; run without --report-only to make some")
            return self.report(records, show=show)

    def report(self, records: Mapping[str, CellRecord], *, show: bool) -> tuple[int, dict[str, Any]]:
        """Write the report, and print it with ``show``; the exit code, 1 if that fails, and the records as JSON."""
        from bench.analysis.predictions import ExampleScores
        from bench.report import write_report

        code, examples, stale = 0, ExampleScores(self.results), self.stale(records)
        try:
            report = write_report(self.spec, self.scale, self.cells, records, self.reports, examples, stale)
            if show:
                from rich.console import Console

                from bench.report.terminal import print_summary

                print_summary(Console(), report.table, report.files)
            else:
                say("report: " + ", ".join(str(file) for file in report.files))
        except OutputError as problem:  # other specs are still to run, and --json shows those that did
            say(f"{self.spec.name}: {problem}")
            code = 1
        return code, self._records_as_json(records, stale)

    def _of_cells(self, stored: Mapping[str, CellRecord]) -> dict[str, CellRecord]:
        return {cell.cell_id: stored[cell.cell_id] for cell in self.cells if cell.cell_id in stored}

    def _records_as_json(self, records: Mapping[str, CellRecord], stale: Mapping[str, str]) -> dict[str, Any]:
        """Selected records, each with ``stale``: the reason why its inputs are not the current ones, or null."""
        selected = [records[cell.cell_id] for cell in self.selected if cell.cell_id in records]
        shown = [record.model_dump(mode="json", by_alias=True) | {"stale": stale.get(record.cell_id)}
                 for record in selected]  # fmt: skip
        return self.as_json("records", shown)


def estimate_costs(
    sweeps: Sequence[Sweep], gpu: AssumedGpu, *, budget_bytes: int | None, max_batch_bytes: int | None, show: bool
) -> tuple[int, list[dict[str, Any]]]:
    """Print costs of the selected cells with ``show``; the exit code and JSON objects."""
    from bench.analysis.costs import compare

    for sweep in sweeps:
        sweep.introduce()
    cells = [cell for sweep in sweeps for cell in sweep.selected]
    # One call for all sweeps, as its pool of processes takes seconds to start.
    estimates, failed = estimate(cells, gpu=gpu, max_batch_bytes=max_batch_bytes)
    shown: list[dict[str, Any]] = []
    for sweep in sweeps:
        stored = sweep.records()
        stale = sweep.stale(stored)
        measured = {key: record for key, record in stored.items() if key not in stale}
        costs = compare(sweep.selected, estimates, measured, budget_bytes=budget_bytes)
        if show:
            from rich.console import Console

            from bench.report.costs import print_costs

            about = f"predicted for {gpu} ({gpu.reason})"
            if max_batch_bytes is not None:
                about += f"; largest training batch within {size_text(max_batch_bytes)}"
            print("\n" * bool(shown), end="")  # between two specs
            print_costs(Console(), sweep.spec.title or sweep.spec.name, sweep.scale, about, costs)
        shown.append(sweep.as_json("records", [cost.as_json() for cost in costs]))
    return int(bool(failed)), shown


def resolve_scale(
    source: SpecSource, named: str | None, *, for_: Purpose, sets: Sequence[str] = (), results: Path
) -> tuple[str, str]:
    """The named scale, else one for the purpose, and the reason in words.

    A run takes the spec as it stands if a CUDA device, its data and weights are there, else ``demo``. An estimate needs
    none of them. Purposes that read records prefer a scale with some under ``results``, the folder of the spec.
    """
    base = source.base_scale
    if named not in (None, "auto"):
        return named, "as asked for"
    if for_ == "estimate":
        return base, "an estimate needs no GPU, data or weights"
    with_results = [scale for scale in source.scales if (results / f"{scale}.jsonl").is_file()]
    if for_ == "published":
        published = source.resolve(base).spec.published
        known = [base, *(published.scales if published else [])]
        return next((scale for scale in known if scale in with_results), base), "a published setting"
    only_one = len(with_results) == 1 and (for_ == "report" or (for_ == "export" and base not in with_results))
    if only_one:
        return with_results[0], f"the only scale with results under {results}"
    if for_ == "export":
        return base, "the spec as it stands"
    if DEMO not in source.scales:
        return base, "the spec has no scale demo"
    if not environment.visible_gpus() or not environment.torch_has_cuda():
        return DEMO, f"{base} needs a CUDA device and none is visible; --scale {base} takes it all the same"
    weights = for_ in ("run", "forget")  # to look for weights may download and read gigabytes
    if missing := _missing(source.resolve(base, sets), weights=weights):
        return DEMO, f"{base} cannot run here: {missing}"
    return base, f"a CUDA device{', the data and the weights' if weights else ' and the data'} are there"


def _missing(resolved: ResolvedSpec, *, weights: bool) -> str | None:
    """First line of the error about missing data or weights; null if all are there."""
    if resolved.spec.run.device == "cpu":
        return "run.device is cpu"
    # Most cells share data and model: each is looked for once.
    needed: dict[str, DataSettings | ModelSettings] = {}
    for checked in resolved.points:
        for settings in (checked.settings.data, checked.settings.model):
            needed[repr(settings)] = settings
    for settings in needed.values():
        try:
            with files.limited_reading(0, patient=True):  # nothing is read: whether it is there is all that counts
                if isinstance(settings, DataSettings):
                    registry.load("datasets", settings.name).digest(settings)
                elif weights:
                    registry.load("models", settings.family).weights_digest(settings)
        except files.UnreadError:  # it is there
            continue
        except BenchError as error:
            return str(error).splitlines()[0]
    return None

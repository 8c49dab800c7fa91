"""What one call of the command line does: plan every spec, then run, list or report each."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry, versions
from bench.endings import say
from bench.errors import INTERRUPTED, OutputError, SpecError
from bench.records.record import CellRecord
from bench.registry import did_you_mean
from bench.report import check_folder
from bench.spec.cell import Cell, expand, select
from bench.spec.load import read_spec
from bench.spec.scale import Choice, choose, choose_for_estimate, choose_for_report
from bench.spec.sections import Spec
from bench.spec.target_modules import target_lines

if TYPE_CHECKING:
    from bench.analysis.costs import Costs
    from bench.estimates import AssumedGpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The arguments that hold for every spec of a call."""

    scale: str | None
    sets: list[str]
    seeds: list[int] | None
    only: list[str]
    executor: str
    results: Path
    reports: Path
    report_only: bool
    list_only: bool
    fresh: bool
    as_json: bool
    forget: bool = False
    estimate: bool = False
    budget_bytes: int | None = None
    max_batch_bytes: int | None = None
    gpu: str | None = None
    """Generation of GPUs that estimates are for; None: see ``estimates.assumed_gpu``."""

    def check(self) -> None:
        """Raises SpecError for options that do not go together, and for names that are not known."""
        if self.executor not in registry.names("executors"):
            hint = did_you_mean(self.executor, registry.names("executors"))
            raise SpecError(f"--executor {self.executor!r} is not known{hint}")
        reading = {"--report-only": self.report_only, "--list": self.list_only}
        for option, given in (reading | {"--fresh": self.fresh}).items():
            if self.estimate and given:
                raise SpecError(f"--estimate and {option} do not go together: --estimate runs nothing; leave one out")
        for option, given in reading.items():
            if self.budget_bytes is not None and given:
                raise SpecError(f"--budget and {option} do not go together: nothing is run or estimated; leave one out")
        for option, given in (reading | {"--fresh": self.fresh, "--estimate": self.estimate}).items():
            if self.forget and given:
                raise SpecError(f"--forget and {option} do not go together: --forget only removes; leave one out")
        if self.forget and self.budget_bytes is not None:
            raise SpecError("--forget and --budget do not go together: --forget only removes; leave one out")
        if self.forget and self.scale in (None, "auto"):
            raise SpecError(
                "--forget needs --scale NAME: which scale a run takes without one depends on what is on the machine; "
                "name the one whose cells are to be removed"
            )
        if self.max_batch_bytes is not None and not self.estimate:
            raise SpecError("--max-batch goes with --estimate: add it")
        if self.gpu is not None and not self.estimate and self.budget_bytes is None:
            raise SpecError("--gpu says what an estimate is for: add --estimate or --budget")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One spec at one scale: what is asked for."""

    spec: Spec
    choice: Choice
    cells: list[Cell]
    selected: list[Cell]
    """Those that ``--only`` means; all without it."""
    results: Path
    """Folder of the spec's results."""
    reports: Path

    def introduce(self) -> None:
        """Say which scale, and why, and whose default modules methods are put on where the spec names none."""
        say(f"{self.spec.name}: scale {self.choice.scale} ({self.choice.reason})")
        for line in target_lines(self.selected):
            say(f"{self.spec.name}: {line}")

    def records(self) -> dict[str, CellRecord]:
        """The stored record of each cell that has one."""
        from bench.records.store import ResultsFile

        stored = ResultsFile(self.results / f"{self.choice.scale}.jsonl").read()
        return {cell.cell_id: stored[cell.cell_id] for cell in self.cells if cell.cell_id in stored}

    def as_json(self, key: str, value: list[dict[str, Any]]) -> dict[str, Any]:
        """The object of ``--json``."""
        return {"spec": self.spec.name, "scale": self.choice.scale, key: value}


def bench(specs: Sequence[str], options: Options) -> int:
    """Do what was asked for each spec; returns the exit code. Raises BenchError before anything runs."""
    options.check()
    if not (options.list_only or options.report_only):
        versions.check()
    if options.report_only:
        gc.disable()  # over soon, with little garbage; looking for it takes a tenth of the time
    gpu = _assumed_gpu(options)
    plans = [_plan(Path(spec), options) for spec in specs]
    _check_distinct(specs, plans)
    if not (options.list_only or options.estimate or options.forget):
        for plan in plans:
            check_folder(plan.reports)
    code, shown = _estimate(plans, options, gpu) if gpu and options.estimate else _each(plans, options, gpu)
    if options.as_json:
        print(json.dumps(shown[0] if len(specs) == 1 else shown, allow_nan=False), flush=True)
    return code


def _each(plans: Sequence[Plan], options: Options, gpu: AssumedGpu | None) -> tuple[int, list[dict[str, Any]]]:
    """Run, list or report one spec after the other; the exit code and the objects of ``--json``."""
    code, shown = 0, []
    for plan in plans:
        plan.introduce()
        if options.forget:
            shown.append(_forget(plan))
        elif options.list_only:
            shown.append(_list(plan, options))
        elif options.report_only:
            told, result = _report_only(plan, options)
            shown.append(result)
            code = max(code, told)
        else:
            ran, result = _run(plan, options, gpu)
            shown.append(result)
            code = max(code, ran)
        if code == INTERRUPTED:
            break
    return code, shown


def _plan(path: Path, options: Options) -> Plan:
    source = read_spec(path)
    name = source.name
    if options.estimate:
        choice = choose_for_estimate(source, options.scale)
    elif options.report_only:
        choice = choose_for_report(source, options.scale, options.sets, options.results / name)
    else:
        choice = choose(source, options.scale, options.sets, weights=not options.list_only)
    resolved = source.resolve(choice.scale, options.sets, options.seeds, alone=options.report_only)
    cells = expand(resolved)
    return Plan(
        spec=resolved.spec,
        choice=choice,
        cells=cells,
        selected=select(cells, options.only),
        results=options.results / resolved.spec.name,
        reports=options.reports / resolved.spec.name,
    )


def _check_distinct(specs: Sequence[str], plans: Sequence[Plan]) -> None:
    if not specs:
        known = ", ".join(str(path) for path in sorted(Path("specs").glob("*.yaml"))) or "none under specs/"
        raise SpecError(f"name a spec to run, e.g. run_bench.py specs/table1.yaml (known: {known}); see --help")
    first: dict[str, str] = {}
    for path, plan in zip(specs, plans, strict=True):
        name = plan.spec.name
        if name in first:
            raise SpecError(f"{path} and {first[name]} are both named {name!r}; give one another `name:`")
        first[name] = path


def _list(plan: Plan, options: Options) -> dict[str, Any]:
    """The selected cells, the status of their records, and what a run would do again."""
    from bench.execution.inputs import inputs_known, why_not_done

    records = plan.records()
    known = inputs_known([cell for cell in plan.selected if cell.cell_id in records], any_device=False)
    width = max(len(cell.label) for cell in plan.selected)
    keys = {"cell_id", "label", "labels", "parts", "seed"}
    listed = []
    for cell in plan.selected:
        record = records.get(cell.cell_id)
        status = str(record.status) if record else None
        left = why_not_done(record, known[cell.cell_id]) if record else "not run"
        if not options.as_json:
            print(f"{cell.label:<{width}}  {cell.cell_id}  {left or status}")
        listed.append(cell.model_dump(mode="json", include=keys) | {"status": status, "to_do": left})
    return plan.as_json("cells", listed)


def _forget(plan: Plan) -> dict[str, Any]:
    """Remove what is stored of the selected cells; the object of ``--json`` has the ids of those that had any."""
    from bench.execution.jobs import forget

    gone = forget(plan.selected, results=plan.results, warn=lambda text: say(f"warning: {text}"))
    say(
        f"{plan.spec.name}: removed {gone} of {len(plan.selected)} cells under {plan.results}; reports stay as they are"
    )
    cells = [cell for cell in plan.selected if cell.cell_id in gone.cell_ids]
    return plan.as_json("forgotten", [{"cell_id": cell.cell_id, "label": cell.label} for cell in cells])


def _report_only(plan: Plan, options: Options) -> tuple[int, dict[str, Any]]:
    records = plan.records()
    if not records:
        say(f"no records of these cells under {plan.results}; run without --report-only to make some")
    return _report(plan, records, options)


def _assumed_gpu(options: Options) -> AssumedGpu | None:
    """Told once; None where nothing is estimated."""
    if not options.estimate and options.budget_bytes is None:
        return None
    from bench.estimates import assumed_gpu

    gpu = assumed_gpu(options.gpu)
    say(f"estimates: for {gpu} ({gpu.reason})")
    return gpu


def _estimate(plans: Sequence[Plan], options: Options, gpu: AssumedGpu) -> tuple[int, list[dict[str, Any]]]:
    """Show what the cells cost; the exit code and the objects of ``--json``. One pool of processes for all specs."""
    from bench.analysis.costs import compare
    from bench.estimates import estimate
    from bench.execution.inputs import stale

    for plan in plans:
        plan.introduce()
    cells = [cell for plan in plans for cell in plan.selected]
    found = estimate(cells, gpu=gpu, max_batch_bytes=options.max_batch_bytes)
    shown = []
    for plan in plans:
        stored = plan.records()
        old = stale(plan.cells, stored)
        measured = {key: record for key, record in stored.items() if key not in old}
        costs = compare(plan.selected, found.estimates, measured, budget_bytes=options.budget_bytes)
        shown.append(plan.as_json("records", [one.as_json() for one in costs]))
        if not options.as_json:
            print("\n" * (len(shown) > 1), end="")  # between two specs
            _print_costs(plan, costs, options, gpu)
    return int(bool(found.failed)), shown


def _print_costs(plan: Plan, costs: Sequence[Costs], options: Options, gpu: AssumedGpu) -> None:
    from rich.console import Console

    from bench.report.costs import print_costs
    from bench.units import size_text

    about = f"predicted for {gpu} ({gpu.reason})"
    if options.max_batch_bytes is not None:
        about += f"; largest training batch within {size_text(options.max_batch_bytes)}"
    print_costs(Console(), plan.spec.title or plan.spec.name, plan.choice.scale, about, costs)


def _run(plan: Plan, options: Options, gpu: AssumedGpu | None) -> tuple[int, dict[str, Any]]:
    """Run what is missing, then report; the exit code and the object of ``--json``."""
    from bench.execution import runner
    from bench.execution.inputs import stale
    from bench.execution.progress import Reporter

    reporter, find = Reporter(), None
    if gpu is not None and options.budget_bytes is not None:
        from bench.estimates import find_unfit

        find = partial(find_unfit, gpu=gpu, budget_bytes=options.budget_bytes, warn=reporter.message)
    with contextlib.redirect_stdout(sys.stderr):  # the inline executor's libraries print into this process
        summary = runner.run(
            plan.selected,
            results=plan.results,
            executor=options.executor,
            fresh=options.fresh,
            reporter=reporter,
            check_budget=find,
        )
    say(f"{plan.spec.name}: {summary}")
    records = plan.records()
    if summary.interrupted:
        say("interrupted: finished cells are kept; the same command goes on where this one stopped")
        return summary.exit_code, _as_json(plan, records, stale(plan.cells, records))
    told, result = _report(plan, records, options)
    return max(summary.exit_code, told), result


def _report(plan: Plan, records: Mapping[str, CellRecord], options: Options) -> tuple[int, dict[str, Any]]:
    """Write and show it; 1 if it could not be written or shown, and the object of ``--json``."""
    from bench.analysis.predictions import Outcomes
    from bench.execution.inputs import stale
    from bench.report import write_report

    code, outcomes, old = 0, Outcomes(plan.results), stale(plan.cells, records)
    try:
        report = write_report(plan.spec, plan.choice.scale, plan.cells, records, plan.reports, outcomes, old)
        if options.as_json:
            say("report: " + ", ".join(str(file) for file in report.files))
        else:
            from rich.console import Console

            from bench.report.terminal import print_summary

            print_summary(Console(), report.table, report.files)
    except OutputError as problem:  # other specs are still to run, and --json has those that did
        say(f"{plan.spec.name}: {problem}")
        code = 1
    return code, _as_json(plan, records, old)


def _as_json(plan: Plan, records: Mapping[str, CellRecord], old: Mapping[str, str]) -> dict[str, Any]:
    """Each record, and under ``stale`` why it is not that of the cell as it is now; null if it is."""
    found = [records[cell.cell_id] for cell in plan.selected if cell.cell_id in records]
    shown = [record.model_dump(mode="json", by_alias=True) | {"stale": old.get(record.cell_id)} for record in found]
    return plan.as_json("records", shown)

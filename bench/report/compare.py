"""Comparisons of two runs, and of a run with a paper, as tables on a terminal and as objects for ``--json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from bench import format
from bench.analysis.compare import Change, ComparedRow, Comparison, Pair
from bench.analysis.reproduction import COUNTED, PublishedCheck, Reproduction
from bench.report.terminal import Grid, GridRow, fit, heading, print_grid, text

STYLES = {
    "worse": "bold red",
    "better": "green",
    "changed": "yellow",
    "not comparable": "yellow",
    "reproduced": "green",
    "off": "bold red",
}
_KINDS = {"exact": "parameters", "measured": "memory and times", "score": "scores"}


# --- two runs ---------------------------------------------------------------------------------------------------


def print_comparison(console: Console, comparison: Comparison, *, everything: bool = False) -> None:
    """Print changes beyond noise, or with ``everything`` all comparisons; then missing and new cells, and notes."""
    several = len({(row.spec, row.scale) for row in comparison.rows}) > 1
    rows = [line for row in comparison.rows for line in _changes_rows(row, everything, with_spec=several)]
    grid = Grid(headers=["Cell", "A", "B", "Change", "Noise", "p", "Verdict"], rows=rows)
    fit(console, grid)
    for side, name in (("A", comparison.a), ("B", comparison.b)):
        console.print(Text.assemble((f"{side}  ", "bold"), format.printable(name)), soft_wrap=True)
    if grid.rows:
        print_grid(console, grid)
    missing_style = "bold" if comparison.allow_missing else "bold red"
    for title, records, style in (
        ("Missing in B", comparison.missing, missing_style),
        ("New in B", comparison.new, "bold"),
    ):
        if records:
            labels = ", ".join(format.one_line(f"{r.label} ({r.spec}, {r.scale})") for r in records)
            console.print(Text.assemble((f"{title}: ", style), labels))
    for note in _comparison_notes(comparison):
        console.print(text(note, "dim"))
    console.print(text(comparison_summary(comparison), "bold red" if comparison.exit_code else "bold green"))


def comparison_summary(comparison: Comparison) -> str:
    """``10 cells compared: 1 worse, 2 better, 48 within noise, 20 not measured``."""
    counts = Counter(verdict for row in comparison.rows for verdict in row.verdicts())
    order = ("worse", "better", "changed", "within noise", "not comparable", "not measured")
    parts = _counts(counts, order)
    parts += [f"{format.counted(len(comparison.missing), 'cell')} missing"] if comparison.missing else []
    parts += [f"{format.counted(len(comparison.new), 'cell')} new"] if comparison.new else []
    return f"{format.counted(sum(len(row.pairs) for row in comparison.rows), 'cell')} compared: {', '.join(parts)}"


def _counts(counts: Counter[str], order: Sequence[str]) -> list[str]:
    return [f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict]]


def _comparison_notes(comparison: Comparison) -> list[str]:
    """Notes on what may explain a change, or prevents a comparison."""
    rows: dict[str, list[str]] = {}
    for row in comparison.rows:
        for difference in row.differences:
            hidden = " and ".join(_KINDS[kind] for kind in difference.hides)
            effect = f"{hidden} cannot be compared" if hidden else "may cause changes"
            note = f"Differs: {format.one_line(difference)} ({effect})"
            rows.setdefault(note, []).append(format.one_line(row.label))
    every = len(comparison.rows)
    lines = [f"{note}: {'all cells' if len(of) == every > 1 else ', '.join(of)}" for note, of in rows.items()]
    if comparison.environments:
        lines.append(f"Made by different programs: {', '.join(map(format.one_line, comparison.environments))}")
    tests = format.counted(sum(change.p is not None for row in comparison.rows for change in row.changes), "test")
    return [
        *lines,
        "Costs: beyond noise if larger than the value after ± (tolerance, spread of the steps, seeds). "
        f"Scores: p < {comparison.options.alpha:g}, corrected for {tests} (Holm); ± half of the 95 % CI.",
    ]


def _changes_rows(row: ComparedRow, everything: bool, *, with_spec: bool) -> Iterator[GridRow]:
    lines = [_status(pair) for pair in row.pairs if pair.status_verdict]
    lines += [_change_texts(c) for c in row.changes if everything or c.verdict in ("worse", "better", "changed")]
    if lines:
        label = f"{row.label} ({row.spec}, {row.scale})" if with_spec else row.label
        yield GridRow(texts=[text(format.one_line(label), "bold")])
    for number, (metric, *values, verdict) in enumerate(lines, start=1):
        texts = [text(f"  {metric}"), *map(text, values), text(verdict, STYLES.get(verdict, ""))]
        yield GridRow(texts=texts, ends_section=number == len(lines))


def _status(pair: Pair) -> tuple[str, str, str, str, str, str, str]:
    a, b = pair.a.record, pair.b.record
    return f"status (seed {a.seed})", str(a.status), str(b.status), "", "", "", pair.status_verdict


def _change_texts(change: Change) -> tuple[str, str, str, str, str, str, str]:
    metric, relative = change.metric, ""
    if change.change and change.a and metric.score is None:
        relative = f" ({format.deviation(100 * change.change / change.a, 1)} %)"
    half = change.noise if change.low is None or change.high is None else (change.high - change.low) / 2
    return (
        metric.titled,
        format.number(change.a, metric.digits),
        format.number(change.b, metric.digits),
        format.deviation(change.change, metric.digits) + relative,
        f"± {format.number(half, metric.digits)}" if half else "",
        "" if change.p is None else f"{change.p:.3g}" if change.p >= 0.001 else "< 0.001",
        change.verdict,
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, for ``--json``: values in the metrics' units."""
    cell = {"cell_id", "spec", "scale", "label", "seed", "status"}
    return {
        "a": comparison.a,
        "b": comparison.b,
        "alpha": comparison.options.alpha,
        "worse": comparison.count("worse"),
        "better": comparison.count("better"),
        "rows": [_row_json(row) for row in comparison.rows],
        "missing": [record.model_dump(mode="json", include=cell) for record in comparison.missing],
        "new": [record.model_dump(mode="json", include=cell) for record in comparison.new],
        "programs": comparison.environments,
        "exit_code": comparison.exit_code,
    }


def _row_json(row: ComparedRow) -> dict[str, Any]:
    pairs = [(pair.a.record, pair.b.record) for pair in row.pairs]
    keys = ("a", "b", "change", "noise", "low", "high", "p", "verdict", "reason")
    return {
        "spec": row.spec,
        "scale": row.scale,
        "label": row.label,
        "cells": [
            {
                "seed": a.seed,
                "cell_id": {"a": a.cell_id, "b": b.cell_id},
                "status": {"a": str(a.status), "b": str(b.status)},
            }
            for a, b in pairs
        ],
        "differs": [{"what": d.what, "a": d.a, "b": d.b, "hides": list(d.hides)} for d in row.differences],
        "changes": [
            {"metric": c.metric.name, "unit": c.metric.unit} | {key: getattr(c, key) for key in keys}
            for c in row.changes
        ],
    }


# --- a run and a paper ------------------------------------------------------------------------------------------


def print_reproduction(console: Console, reproduction: Reproduction) -> None:
    """Print verdicts, a row per cell and a column per metric; then tolerances, and inconsistencies of the paper."""
    grid = _verdicts_grid(reproduction) if reproduction.checks and reproduction.comparable else None
    if grid:
        fit(console, grid)
    console.print(
        heading(
            reproduction.scale, f"{format.one_line(reproduction.spec)} against {format.one_line(reproduction.source)}"
        )
    )
    if grid:
        print_grid(console, grid)
    for note in _reproduction_notes(reproduction):
        console.print(text(note, "dim"))
    if reproduction.inconsistencies:
        console.print(text("The paper's own inconsistencies", "bold"))
    for entry in reproduction.inconsistencies:
        console.print(text(f"  {entry.row}: {entry.metric + ' ' if entry.metric else ''}{entry.problem}"))
    console.print(text(reproduction_summary(reproduction), "bold red" if reproduction.exit_code else "bold"))


def reproduction_summary(reproduction: Reproduction) -> str:
    """``50 published numbers: 40 reproduced, 2 off, 8 not measured``."""
    counts: Counter[str] = Counter(check.verdict for check in reproduction.checks)
    parts = _counts(counts, ("reproduced", "off", "not measured", "not comparable"))
    parts += ["nothing could be compared"] if reproduction.nothing_compared else []
    parts += [f"{len(reproduction.inconsistencies)} inconsistent in the paper"] if reproduction.inconsistencies else []
    return f"{format.counted(len(reproduction.checks), 'published number')}: {', '.join(parts) or 'none'}"


def _reproduction_notes(reproduction: Reproduction) -> list[str]:
    if not reproduction.comparable:
        return [
            f"Scale {format.one_line(reproduction.scale)} is not the published setting: its numbers cannot be compared "
            "with the paper's. Run the scale paper, and choose it with --scale."
        ]
    rules: dict[str, list[float]] = {}
    for v in reproduction.checks:
        if v.rule and v.tolerance is not None:
            rules.setdefault(f"{v.metric.header}: {v.rule}", []).append(v.tolerance)
    ranges = [f"{rule} (± {_range(sizes)})" for rule, sizes in rules.items()]
    notes = [f"Reproduced if not further off than: {'; '.join(ranges)}."] if ranges else []
    if any(v.predicted is not None for v in reproduction.checks):
        notes.append(f"{format.PREDICTED} predicted, not measured: no verdict.")
    if reproduction.counted:
        cells = format.counted(reproduction.counted, "cell")
        notes.append(f"Parameters of {cells} were counted just now, on the adapted model without weights.")
    if all(v.verdict == "not measured" or v.metric.name in COUNTED for v in reproduction.checks):
        notes.append("Nothing was run: run the spec first, or name the folder of its records with --results.")
    return notes


def _range(sizes: Sequence[float]) -> str:
    least, most = f"{min(sizes):.2g}", f"{max(sizes):.2g}"
    return least if least == most else f"{least} to {most}"


def _verdicts_grid(reproduction: Reproduction) -> Grid:
    headers = {v.metric.name: v.metric.titled for v in reproduction.checks}
    rows: dict[str, dict[str, PublishedCheck]] = {}
    for v in reproduction.checks:
        rows.setdefault(v.label, {})[v.metric.name] = v
    lines = []
    for label, verdicts in rows.items():
        known = [verdicts.get(name) for name in headers]
        texts = [text(verdict_text(v), STYLES.get(v.verdict, "dim")) if v else text("") for v in known]
        lines.append(GridRow(texts=[text(label), *texts]))
    return Grid(headers=["Cell", *headers.values()], rows=lines)


def verdict_text(check: PublishedCheck) -> str:
    """``reproduced``, ``off by +1.20``, ``not measured (≈ −0.31)``, ``not comparable``."""
    if check.verdict == "off":
        return f"off by {format.deviation(check.off_by, check.metric.digits)}"
    if check.verdict == "not measured" and check.predicted is not None:
        against = format.deviation(check.predicted - check.published, check.metric.digits)
        return f"not measured ({format.predicted(against)})"
    return check.verdict


def reproduction_json(reproduction: Reproduction) -> dict[str, Any]:
    """Everything, for ``--json``: values in the metrics' units."""
    keys = ("published", "ours", "predicted", "off_by", "tolerance", "rule", "cells")
    return {
        "spec": reproduction.spec,
        "scale": reproduction.scale,
        "source": reproduction.source,
        "verdicts": [
            {"label": v.label, "metric": v.metric.name, "unit": v.metric.unit, "verdict": v.verdict}
            | {key: getattr(v, key) for key in keys}
            for v in reproduction.checks
        ],
        "counted": reproduction.counted,
        "inconsistencies": [
            {"row": i.row, "metric": i.metric, "problem": i.problem} for i in reproduction.inconsistencies
        ],
        "exit_code": reproduction.exit_code,
    }

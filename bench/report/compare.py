"""How a comparison is shown: tables on a terminal, one object as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bench import format
from bench.analysis.compare import Comparison, RowChanges
from bench.analysis.compare.changes import Change
from bench.format import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"worse": "bold red", "better": "green", "changed": "yellow", "not comparable": "yellow"}
WIDE = 500
"""Columns that any table needs at most."""
_KINDS = {"exact": "parameters", "measured": "memory and times", "score": "scores"}
_SHOWN = ("worse", "better", "changed")


def print_comparison(console: Console, found: Comparison, *, everything: bool = False) -> None:
    """What changed beyond noise, or with ``everything`` all that was compared; then cells that are missing or new, and
    what else than the run differs.
    """
    from rich.text import Text

    console.print(Text.assemble(("A  ", "bold"), printable(found.a)), soft_wrap=True)
    console.print(Text.assemble(("B  ", "bold"), printable(found.b)), soft_wrap=True)
    grid = _grid(found, everything)
    if grid.row_count:
        fit(console, grid)
        console.print(grid)
    for title, records in (("Missing in B", found.missing), ("New in B", found.new)):
        if records:
            style = "bold red" if records is found.missing and not found.allow_missing else "bold"
            labels = ", ".join(one_line(f"{record.label} ({record.spec}, {record.scale})") for record in records)
            console.print(Text.assemble((f"{title}: ", style), labels))
    for note in notes(found):
        console.print(Text(note, "dim"))
    console.print(Text(summary(found), "bold red" if found.exit_code else "bold green"))


def fit(console: Console, grid: Table) -> None:
    """Into a file or a pipe, lines as long as the table needs."""
    if not console.is_terminal:
        needed = console.measure(grid, options=console.options.update(width=WIDE)).maximum
        console.width = max(console.width, needed)


def summary(found: Comparison) -> str:
    """``10 cells: 1 worse, 2 better, 48 within noise, 20 not measured``."""
    counts = Counter(verdict for row in found.rows for verdict in row.verdicts())
    order = ("worse", "better", "changed", "within noise", "not comparable", "not measured")
    told = [f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict]]
    told += [f"{format.counted(len(found.missing), 'cell')} missing"] if found.missing else []
    told += [f"{format.counted(len(found.new), 'cell')} new"] if found.new else []
    return f"{format.counted(sum(len(row.row.pairs) for row in found.rows), 'cell')} compared: {', '.join(told)}"


def notes(found: Comparison) -> list[str]:
    """What may lie behind a change, or kept it from being looked at."""
    told: dict[str, list[str]] = {}
    for row in found.rows:
        for difference in row.row.differences():
            hidden = " and ".join(_KINDS[kind] for kind in difference.hides)
            effect = f" ({hidden} cannot be compared)" if hidden else " (changes may come of it)"
            told.setdefault(f"Differs: {one_line(difference)}{effect}", []).append(one_line(row.row.label))
    lines = [f"{note}: {_whose(labels, len(found.rows))}" for note, labels in told.items()]
    if found.environments:
        lines.append(f"Made by different programs: {', '.join(map(format.one_line, found.environments))}")
    return [*lines, *_how(found)]


def _whose(labels: list[str], rows: int) -> str:
    return "all cells" if len(labels) == rows > 1 else ", ".join(labels)


def _how(found: Comparison) -> list[str]:
    tested = sum(change.p is not None for row in found.rows for change in row.changes)
    rule = f"p < {found.rules.alpha:g}, corrected for {format.counted(tested, 'test')} (Holm)"
    return [
        "Costs: beyond noise if larger than what stands behind ± (tolerance, spread of the steps, seeds). "
        f"Scores: {rule}; ± half of the interval at 95 %."
    ]


def _grid(found: Comparison, everything: bool) -> Table:
    from rich import box
    from rich.table import Table as RichTable

    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="")
    grid.add_column("Cell", overflow="fold")
    for header in ("A", "B", "Change", "Noise", "p"):
        grid.add_column(header, justify="right", no_wrap=True)
    grid.add_column("Verdict", no_wrap=True)
    specs = {(row.row.spec, row.row.scale) for row in found.rows}
    for row in found.rows:
        _add_row(grid, row, everything, with_spec=len(specs) > 1)
    return grid


def _add_row(grid: Table, row: RowChanges, everything: bool, *, with_spec: bool) -> None:
    lines = [(f"status (seed {s.seed})", str(s.a), str(s.b), "", "", "", s.verdict) for s in row.statuses]
    lines += [_line(change) for change in row.changes if everything or change.verdict in _SHOWN]
    label = f"{row.row.label} ({row.row.spec}, {row.row.scale})" if with_spec else row.row.label
    if lines:
        grid.add_row(_text(one_line(label), "bold"))
    for number, (what, *values, verdict) in enumerate(lines, start=1):
        cells = [_text(f"  {what}"), *map(_text, values), _text(verdict, STYLES.get(verdict, ""))]
        grid.add_row(*cells, end_section=number == len(lines))


def _line(found: Change) -> tuple[str, str, str, str, str, str, str]:
    metric, change = found.metric, found.change
    relative = (
        f" ({format.deviation(100 * change / found.a, 1)} %)" if change and found.a and metric.score is None else ""
    )
    half = found.noise if found.low is None or found.high is None else (found.high - found.low) / 2
    return (
        metric.titled,
        format.number(found.a, metric.digits),
        format.number(found.b, metric.digits),
        format.deviation(change, metric.digits) + relative,
        f"± {format.number(half, metric.digits)}" if half else "",
        "" if found.p is None else f"{found.p:.3g}" if found.p >= 0.001 else "< 0.001",
        found.verdict,
    )


def _text(words: str, style: str = "") -> Any:
    """Not markup: a label may hold brackets."""
    from rich.text import Text

    return Text(words, style)


def as_json(found: Comparison) -> dict[str, Any]:
    """Everything, for ``--json``: values in the metrics' units."""
    return {
        "a": found.a,
        "b": found.b,
        "alpha": found.rules.alpha,
        "worse": found.count("worse"),
        "better": found.count("better"),
        "rows": [_row_json(row) for row in found.rows],
        "missing": [_cell_json(record) for record in found.missing],
        "new": [_cell_json(record) for record in found.new],
        "programs": found.environments,
        "exit_code": found.exit_code,
    }


def _cell_json(record: Any) -> dict[str, Any]:
    keys = {"cell_id", "spec", "scale", "label", "seed", "status"}
    dumped: dict[str, Any] = record.model_dump(mode="json", include=keys)
    return dumped


def _row_json(row: RowChanges) -> dict[str, Any]:
    return {
        "spec": row.row.spec,
        "scale": row.row.scale,
        "label": row.row.label,
        "cells": [
            {
                "seed": pair.a.record.seed,
                "cell_id": {"a": pair.a.record.cell_id, "b": pair.b.record.cell_id},
                "status": {"a": str(pair.a.record.status), "b": str(pair.b.record.status)},
            }
            for pair in row.row.pairs
        ],
        "differs": [{"what": d.what, "a": d.a, "b": d.b, "hides": list(d.hides)} for d in row.row.differences()],
        "changes": [_change_json(change) for change in row.changes],
    }


def _change_json(found: Change) -> dict[str, Any]:
    keys = ("a", "b", "change", "noise", "low", "high", "p", "verdict", "reason")
    return {"metric": found.metric.name, "unit": found.metric.unit} | {key: getattr(found, key) for key in keys}

"""How the verdicts on published numbers are shown: a table on a terminal, one object as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from bench import format
from bench.analysis.compare.published import COUNTED, Reproduction, Verdict
from bench.format import one_line
from bench.report.captions import scale_tag
from bench.report.compare import fit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"reproduced": "green", "off": "bold red", "not comparable": "yellow"}


def print_reproduction(console: Console, found: Reproduction) -> None:
    """A row per cell, a column per published one; then the tolerances, and the paper's inconsistencies."""
    from rich.text import Text

    tag = (f"{scale_tag(found.scale)}: ", "bold yellow") if scale_tag(found.scale) else ""
    console.print(Text.assemble(tag, (f"{one_line(found.spec)} against {one_line(found.source)}", "bold")))
    if found.verdicts and found.comparable:
        grid = _grid(found)
        fit(console, grid)
        console.print(grid)
    for note in notes(found):
        console.print(Text(note, "dim"))
    if found.inconsistencies:
        console.print(Text("The paper's own inconsistencies", "bold"))
        for one in found.inconsistencies:
            console.print(Text(f"  {one.row}: {one.metric + ' ' if one.metric else ''}{one.problem}"))
    console.print(Text(summary(found), "bold red" if found.exit_code else "bold"))


def summary(found: Reproduction) -> str:
    """``50 published numbers: 40 reproduced, 2 off, 8 not measured``."""
    counts = Counter(verdict.outcome for verdict in found.verdicts)
    told = [f"{counts[o]} {o}" for o in ("reproduced", "off", "not measured", "not comparable") if counts[o]]
    if found.nothing_compared:
        told.append("nothing could be compared")
    if found.inconsistencies:
        told.append(f"{len(found.inconsistencies)} inconsistent in the paper")
    return f"{format.counted(len(found.verdicts), 'published number')}: {', '.join(told) or 'none'}"


def notes(found: Reproduction) -> list[str]:
    """What the verdicts rest on."""
    if not found.comparable:
        return [
            f"Scale {one_line(found.scale)} is not the published setting: its numbers cannot be compared with the "
            "paper's. Run the scale paper, and choose it with --scale."
        ]
    rules: dict[str, list[Verdict]] = {}
    for verdict in found.verdicts:
        if verdict.rule:
            rules.setdefault(f"{verdict.metric.header}: {verdict.rule}", []).append(verdict)
    told = [f"{rule} (± {_range(those)})" for rule, those in rules.items()]
    lines = [f"Reproduced if not further off than: {'; '.join(told)}."] if told else []
    if any(v.predicted is not None for v in found.verdicts):
        lines.append(f"{format.PREDICTED} predicted, not measured: no verdict.")
    if found.counted:
        cells = format.counted(found.counted, "cell")
        lines.append(f"Parameters of {cells} were counted just now, on the adapted model without weights.")
    if all(v.outcome == "not measured" or v.metric.name in COUNTED for v in found.verdicts):
        lines.append("Nothing was run: run the spec first, or name the folder of its records with --results.")
    return lines


def _range(verdicts: list[Verdict]) -> str:
    sizes = sorted(v.tolerance for v in verdicts if v.tolerance is not None)
    least, most = (f"{size:.2g}" for size in (sizes[0], sizes[-1]))
    return least if least == most else f"{least} to {most}"


def _grid(found: Reproduction) -> Table:
    from rich import box
    from rich.table import Table as RichTable

    columns = list(dict.fromkeys(verdict.metric.name for verdict in found.verdicts))
    headers = {verdict.metric.name: verdict.metric.titled for verdict in found.verdicts}
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="")
    grid.add_column("Cell", overflow="fold")
    for name in columns:
        grid.add_column(_text(headers[name].replace(" (", "\n(")), justify="right")
    rows: dict[str, dict[str, Verdict]] = {}
    for verdict in found.verdicts:
        rows.setdefault(verdict.label, {})[verdict.metric.name] = verdict
    for label, verdicts in rows.items():
        grid.add_row(_text(label), *(_entry(verdicts.get(name)) for name in columns))
    return grid


def _entry(verdict: Verdict | None) -> Any:
    if verdict is None:
        return _text("")
    return _text(verdict_text(verdict), STYLES.get(verdict.outcome, "dim"))


def verdict_text(verdict: Verdict) -> str:
    """``reproduced``, ``off by +1.20``, ``not measured (≈ −0.31)``, ``not comparable``."""
    if verdict.outcome == "off":
        return f"off by {format.deviation(verdict.off_by, verdict.metric.digits)}"
    if verdict.outcome == "not measured" and verdict.predicted is not None:
        against = format.deviation(verdict.predicted - verdict.published, verdict.metric.digits)
        return f"not measured ({format.predicted(against)})"
    return verdict.outcome


def as_json(found: Reproduction) -> dict[str, Any]:
    """Everything, for ``--json``: values in the metrics' units."""
    keys = ("published", "ours", "predicted", "off_by", "tolerance", "rule", "cells")
    return {
        "spec": found.spec,
        "scale": found.scale,
        "source": found.source,
        "verdicts": [
            {"label": v.label, "metric": v.metric.name, "unit": v.metric.unit, "verdict": v.outcome}
            | {key: getattr(v, key) for key in keys}
            for v in found.verdicts
        ],
        "counted": found.counted,
        "inconsistencies": [{"row": i.row, "metric": i.metric, "problem": i.problem} for i in found.inconsistencies],
        "exit_code": found.exit_code,
    }


def _text(words: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(words, style)

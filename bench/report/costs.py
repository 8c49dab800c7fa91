"""Tables of ``--estimate``: costs, memory and its kinds, measured values, and assumptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import format
from bench.analysis.costs import Costs
from bench.records.costs import MEMORY_KINDS, PredictedMemory, PredictedPhase
from bench.report.terminal import Grid, GridRow, fit, heading, print_grid, text
from bench.units import size_text

if TYPE_CHECKING:
    from rich.console import Console

    Column = tuple[str, Callable[[Costs], str]]
    """Header, and text in a cell's row."""

METHODS = "methods"
"""Key of an assumption: which modules each method is put on."""
LONG = 60
"""Characters above which an assumption gets a separate line."""
_STYLES = {"yes": "green", "no": "bold red"}
_MEASURED = {
    "train_allocated_peak_bytes": "Training\nallocated",
    "train_reserved_peak_bytes": "Training\nreserved",
    "eval_allocated_peak_bytes": "Evaluation\nallocated",
    "eval_reserved_peak_bytes": "Evaluation\nreserved",
    "nvml_process_peak_bytes": "Process\n(NVML)",
}


def print_costs(console: Console, title: str, scale: str, about: str, costs: Sequence[Costs]) -> None:
    """Print title, ``about`` the numbers, all tables, and notes."""
    unit, size, digits = _memory_unit(costs)
    grids = [
        _grid("Parameters (exact) and operations (counted)", costs, _cost_columns(costs)),
        _grid(f"Peak GPU memory ({unit}), predicted", costs, _memory_columns(costs, unit, size, digits)),
        _grid(f"Kinds of memory at the peak of training ({unit})", costs, _kind_columns(size, digits + 1)),
    ]
    if measured := [c for c in costs if c.measured]:
        columns = _measured_columns(measured, size, digits)
        grids.append(_grid(f"Measured ({unit}), and the error of the prediction", measured, columns))
    fit(console, *grids)
    console.print(heading(scale, title))
    console.print(text(f"Scale: {format.one_line(scale)}; {about}.", "dim"))
    for grid in grids:
        print_grid(console, grid)
    console.print()
    for note in _notes(costs):
        console.print(text(note, "dim"))


def _grid(title: str, costs: Sequence[Costs], columns: Sequence[Column]) -> Grid:
    rows = [[_label(c), *(value(c) for _, value in columns)] for c in costs]
    return Grid(
        title=title,
        headers=["Cell", *(header for header, _ in columns)],
        rows=[GridRow(texts=[text(words, _STYLES.get(words, "")) for words in row]) for row in rows],
    )


def _memory_unit(costs: Sequence[Costs]) -> tuple[str, int, int]:
    """Name, bytes and digits of the unit for all cells; MiB if all peaks are below half a GiB."""
    phases = [p for c in costs if (m := c.estimate.memory) for p in (m.train, m.eval) if p]
    large = max((p.allocated_peak_bytes for p in phases), default=0) >= 2**29
    return ("GiB", 2**30, 2) if large else ("MiB", 2**20, 1)


def _cost_columns(costs: Sequence[Costs]) -> list[Column]:
    most = max((c.estimate.flops.train_step or 0 for c in costs if c.estimate.flops), default=0)
    unit, size = ("TFLOPs", 10**12) if most >= 10**12 else ("GFLOPs", 10**9)
    return [
        ("#Params\n(%)", lambda c: format.number(p.pct if (p := c.estimate.params) else None, 3)),
        ("Trainable\n(M)", lambda c: _scaled(p.trainable if (p := c.estimate.params) else None, 10**6, 3)),
        ("Stored\n(M)", lambda c: _scaled(p.stored if (p := c.estimate.params) else None, 10**6, 3)),
        ("Adapter\n(MB)", lambda c: _scaled(c.estimate.adapter_bytes, 10**6, 2)),
        (f"Step\n({unit})", lambda c: _scaled(f.train_step if (f := c.estimate.flops) else None, size, 3)),
        ("Answer\n(GFLOPs)", lambda c: _scaled(f.eval_sample if (f := c.estimate.flops) else None, 10**9, 3)),
        ("Step time\n(relative)", lambda c: format.number(c.relative_train_time, 2)),
    ]


def _memory_columns(costs: Sequence[Costs], unit: str, size: int, digits: int) -> list[Column]:
    def peak(of: Callable[[PredictedMemory], PredictedPhase | None], kind: str, c: Costs) -> str:
        phase = of(c.estimate.memory) if c.estimate.memory else None
        return _scaled(getattr(phase, f"{kind}_peak_bytes") if phase else None, size, digits)

    def margin(c: Costs) -> str:
        return format.deviation(None if c.margin_bytes is None else c.margin_bytes / size, digits)

    columns: list[Column] = [
        (f"{name}\n{kind}", partial(peak, of, kind))
        for name, of in (("Training", lambda m: m.train), ("Evaluation", lambda m: m.eval))
        for kind in ("allocated", "reserved")
    ]
    needed: Column = (
        "Needed\n+ context",
        lambda c: _scaled(m.process_peak_bytes if (m := c.estimate.memory) else None, size, digits),
    )
    columns.append(needed)
    if budget := costs[0].budget_bytes:
        words = {None: format.DASH, True: "yes", False: "no"}
        columns += [(f"Fits\n{size_text(budget)}", lambda c: words[c.fits]), (f"Margin\n({unit})", margin)]
    if any(c.estimate.max_batch is not None for c in costs):
        columns.append(("Largest\nbatch", lambda c: _scaled(c.estimate.max_batch, 1, 0)))
    return columns


def _kind_columns(size: int, digits: int) -> list[Column]:
    def train(bytes_of: Callable[[PredictedPhase], int], c: Costs) -> str:
        phase = c.estimate.memory.train if c.estimate.memory else None
        return _scaled(bytes_of(phase) if phase else None, size, digits)

    def kind(name: str) -> Callable[[PredictedPhase], int]:
        return lambda phase: phase.by_kind.get(name, 0)

    kinds = [(name.replace("_", "\n").capitalize(), kind(name)) for name in MEMORY_KINDS]
    return [
        (header, partial(train, bytes_of))
        for header, bytes_of in (*kinds, ("Allocated", lambda p: p.allocated_peak_bytes))
    ]


def _measured_columns(costs: Sequence[Costs], size: int, digits: int) -> list[Column]:
    """Each measured peak, and the relative error of its prediction."""

    def peak(name: str, c: Costs) -> str:
        return _scaled(c.measured.get(name), size, digits)

    def error(name: str, c: Costs) -> str:
        relative = c.relative_error.get(name)
        return format.deviation(None if relative is None else 100 * relative, 1)

    columns: list[Column] = []
    for name, header in _MEASURED.items():
        if any(name in c.measured for c in costs):
            columns += [(header, partial(peak, name)), ("Error\n(%)", partial(error, name))]
    return columns


def _notes(costs: Sequence[Costs]) -> list[str]:
    contexts = {c.estimate.memory.context_bytes for c in costs if c.estimate.memory}
    sizes = ", ".join(size_text(size) for size in sorted(contexts))
    notes = [f"Needed: the higher of the two reserved peaks, and the CUDA context ({sizes})."] if contexts else []
    if any(c.measured for c in costs):
        notes.append("Error: predicted minus measured, divided by measured.")
    if len(costs) > 1:
        notes.append("Relative step time: the FLOPs of a training step, divided by those of the costliest cell.")
    targets = [target for c in costs for target in c.estimate.assumed.get(METHODS, {}).items()]
    notes += [format.one_line(f"{where}: {note}.") for where, note in dict.fromkeys(targets)]
    assumed = _assumed([c for c in costs if c.estimate.assumed])
    if short := [words for words in assumed if len(words) <= LONG]:
        notes.append(f"Assumed: {'; '.join(short)}.")
    notes += [f"Assumed: {words}." for words in assumed if len(words) > LONG]
    refused = _by_value((c, reason) for c in costs for reason in c.estimate.refused)
    return notes + [f"Not modelled ({_names(who, costs)}): {reason}" for reason, who in refused.items()]


def _assumed(costs: Sequence[Costs]) -> list[str]:
    """Each assumption once if it is the same for all cells, else each value with its cells."""
    notes = []
    for key in dict.fromkeys(key for c in costs for key in c.estimate.assumed if key != METHODS):
        values = _by_value((c, c.estimate.assumed[key]) for c in costs if key in c.estimate.assumed)
        shown = [v if len(who) == len(costs) else f"{v} ({_names(who, costs)})" for v, who in values.items()]
        notes.append(f"{format.one_line(key).replace('_', ' ')} {' / '.join(shown)}")
    return notes


def _by_value(pairs: Iterable[tuple[Costs, Any]]) -> Mapping[str, list[Costs]]:
    """Cells by the text of their value."""
    found: dict[str, list[Costs]] = {}
    for costs, value in pairs:
        words = format.one_line(value if isinstance(value, str) else json.dumps(value))
        found.setdefault(words, []).append(costs)
    return found


def _names(some: Sequence[Costs], every: Sequence[Costs]) -> str:
    return "all cells" if len(some) == len(every) > 1 else ", ".join(map(_label, some))


def _label(costs: Costs) -> str:
    return format.one_line(costs.cell.label)


def _scaled(value: float | None, unit: int, digits: int) -> str:
    return format.number(None if value is None else value / unit, digits)

"""Prints what ``--estimate`` found: costs, memory and its parts, measured values if any, and what was assumed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import format
from bench.analysis.costs import Costs
from bench.records.record import MEMORY_KINDS, PredictedPhase
from bench.report.captions import scale_tag
from bench.units import size_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

GAP = 2
"""Columns of a terminal between two of a table: a space of padding and the box's."""
METHODS = "methods"
"""Of what is assumed: what each method is put on."""
LONG = 60
"""An assumption with more characters than this gets a line of its own."""
_STYLES = {"yes": "green", "no": "bold red"}
_MEASURED = {
    "train_allocated_peak_bytes": "Training\nallocated",
    "train_reserved_peak_bytes": "Training\nreserved",
    "eval_allocated_peak_bytes": "Evaluation\nallocated",
    "eval_reserved_peak_bytes": "Evaluation\nreserved",
    "nvml_process_peak_bytes": "Process\n(NVML)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table of texts; the first column holds labels."""

    title: str
    headers: list[str]
    rows: list[list[str]]

    @property
    def width(self) -> int:
        """Columns of a terminal that it needs."""
        widths = [
            max(len(line) for line in [*header.split("\n"), *(row[index] for row in self.rows)])
            for index, header in enumerate(self.headers)
        ]
        return sum(widths) + GAP * (len(widths) - 1)


@dataclass(frozen=True, slots=True)
class Unit:
    """What the numbers of a column are divided by, and the digits printed."""

    name: str
    size: int
    digits: int

    def text(self, value: int | None, more_digits: int = 0) -> str:
        return _scaled(value, self.size, self.digits + more_digits)


def print_costs(console: Console, title: str, scale: str, about: str, costs: Sequence[Costs]) -> None:
    """Print title, what the numbers are about, all tables and notes; one cell below the other where the terminal is
    too narrow for a table."""
    from rich.text import Text

    grids = [_cost_grid(costs), _memory_grid(costs), _kinds_grid(costs), *_measured_grid(costs)]
    if not console.is_terminal:
        console.width = max(console.width, *(grid.width for grid in grids))
    tag = scale_tag(scale)
    console.print(Text.assemble((f"{tag}: ", "bold yellow") if tag else "", (format.one_line(title), "bold")))
    console.print(Text(f"Scale: {format.one_line(scale)}; {about}.", "dim"))
    for grid in grids:
        console.print(Text(f"\n{grid.title}", "bold"))
        if grid.width <= console.width:
            console.print(_rich(grid))
        else:
            for row in grid.rows:
                console.print(_stacked(grid, row))
    console.print()
    for note in _notes(costs):
        console.print(Text(note, "dim"))


def _memory_unit(costs: Sequence[Costs]) -> Unit:
    """The same for all cells; MiB for models so small that GiB would show nothing."""
    phases = [p for c in costs if (m := c.estimate.memory) for p in (m.train, m.eval) if p]
    large = max((p.allocated_peak_bytes for p in phases), default=0) >= 2**29
    return Unit("GiB", 2**30, 2) if large else Unit("MiB", 2**20, 1)


def _step_unit(costs: Sequence[Costs]) -> Unit:
    steps = [c.estimate.flops.train_step or 0 for c in costs if c.estimate.flops]
    return Unit("TFLOPs", 10**12, 3) if max(steps, default=0) >= 10**12 else Unit("GFLOPs", 10**9, 3)


def _cost_grid(costs: Sequence[Costs]) -> Grid:
    unit = _step_unit(costs)
    headers = ["Cell", "#Params\n(%)", "Trainable\n(M)", "Stored\n(M)", "Adapter\n(MB)"]
    headers += [f"Step\n({unit.name})", "Answer\n(GFLOPs)", "Step time\n(relative)"]
    rows = [_cost_row(c, unit) for c in costs]
    return Grid(title="Parameters (exact) and operations (counted)", headers=headers, rows=rows)


def _cost_row(costs: Costs, unit: Unit) -> list[str]:
    estimate, params, flops = costs.estimate, costs.estimate.params, costs.estimate.flops
    return [
        _label(costs),
        format.number(params.pct if params else None, 3),
        _scaled(params.trainable if params else None, 10**6, 3),
        _scaled(params.stored if params else None, 10**6, 3),
        _scaled(estimate.adapter_bytes, 10**6, 2),
        unit.text(flops.train_step if flops else None),
        _scaled(flops.eval_sample if flops else None, 10**9, 3),
        format.number(costs.relative_train_time, 2),
    ]


def _memory_grid(costs: Sequence[Costs]) -> Grid:
    unit = _memory_unit(costs)
    headers = ["Cell", "Training\nallocated", "Training\nreserved", "Evaluation\nallocated", "Evaluation\nreserved"]
    headers += ["Needed\n+ context"]
    rows = [_memory_row(c, unit) for c in costs]
    if budget := costs[0].budget_bytes:
        headers += [f"Fits\n{size_text(budget)}", f"Margin\n({unit.name})"]
        rows = [[*row, _fits(c), _margin(c, unit)] for row, c in zip(rows, costs, strict=True)]
    if any(c.estimate.max_batch is not None for c in costs):
        headers += ["Largest\nbatch"]
        rows = [[*row, _scaled(c.estimate.max_batch, 1, 0)] for row, c in zip(rows, costs, strict=True)]
    return Grid(title=f"Peak GPU memory ({unit.name}), predicted", headers=headers, rows=rows)


def _memory_row(costs: Costs, unit: Unit) -> list[str]:
    memory = costs.estimate.memory
    if memory is None:
        return [_label(costs)] + [format.DASH] * 5
    peaks = [peak for p in (memory.train, memory.eval) for peak in _peaks(p)]
    return [_label(costs), *(unit.text(peak) for peak in [*peaks, memory.process_peak_bytes])]


def _peaks(phase: PredictedPhase | None) -> tuple[int | None, int | None]:
    return (phase.allocated_peak_bytes, phase.reserved_peak_bytes) if phase else (None, None)


def _fits(costs: Costs) -> str:
    return format.DASH if costs.fits is None else "yes" if costs.fits else "no"


def _margin(costs: Costs, unit: Unit) -> str:
    return format.deviation(None if costs.margin_bytes is None else costs.margin_bytes / unit.size, unit.digits)


def _kinds_grid(costs: Sequence[Costs]) -> Grid:
    unit = _memory_unit(costs)
    headers = ["Cell", *(kind.replace("_", "\n").capitalize() for kind in MEMORY_KINDS), "Allocated"]
    title = f"What the peak of training is made of ({unit.name})"
    return Grid(title=title, headers=headers, rows=[_kinds_row(c, unit) for c in costs])


def _kinds_row(costs: Costs, unit: Unit) -> list[str]:
    train = costs.estimate.memory.train if costs.estimate.memory else None
    if train is None:
        return [_label(costs)] + [format.DASH] * (len(MEMORY_KINDS) + 1)
    sizes = [*(train.by_kind.get(kind, 0) for kind in MEMORY_KINDS), train.allocated_peak_bytes]
    return [_label(costs), *(unit.text(size, more_digits=1) for size in sizes)]


def _measured_grid(costs: Sequence[Costs]) -> list[Grid]:
    """None if nothing was measured."""
    names = [name for name in _MEASURED if any(name in c.measured for c in costs)]
    if not names:
        return []
    headers = ["Cell", *(header for name in names for header in (_MEASURED[name], "Error\n(%)"))]
    unit = _memory_unit(costs)
    rows = [[_label(c), *(value for name in names for value in _against(c, name, unit))] for c in costs if c.measured]
    title = f"Measured ({unit.name}), and by how much the prediction is too high"
    return [Grid(title=title, headers=headers, rows=rows)]


def _against(costs: Costs, name: str, unit: Unit) -> list[str]:
    error = costs.relative_error.get(name)
    return [unit.text(costs.measured.get(name)), format.deviation(None if error is None else 100 * error, 1)]


def _notes(costs: Sequence[Costs]) -> list[str]:
    contexts = {c.estimate.memory.context_bytes for c in costs if c.estimate.memory}
    sizes = ", ".join(size_text(size) for size in sorted(contexts))
    notes = [f"Needed: the higher of the two reserved peaks, and the CUDA context ({sizes})."] if contexts else []
    if len(costs) > 1:
        notes.append("Relative step time: the FLOPs of a training step, divided by those of the costliest cell.")
    notes += _methods(costs)
    assumed = _assumed(costs)
    if short := [words for words in assumed if len(words) <= LONG]:
        notes.append(f"Assumed: {'; '.join(short)}.")
    notes += [f"Assumed: {words}." for words in assumed if len(words) > LONG]
    refusals = dict.fromkeys(reason for c in costs for reason in c.estimate.refused)
    return notes + [f"Not modelled ({_labels(costs, reason)}): {format.one_line(reason)}" for reason in refusals]


def _labels(costs: Sequence[Costs], reason: str) -> str:
    return _whose([c for c in costs if reason in c.estimate.refused], costs)


def _methods(costs: Sequence[Costs]) -> list[str]:
    """What each method is put on in each part, once if it is the same in several cells."""
    found = [words for c in costs for words in c.estimate.assumed.get(METHODS, {}).items()]
    return [format.one_line(f"{where}: {note}.") for where, note in dict.fromkeys(found)]


def _assumed(costs: Sequence[Costs]) -> list[str]:
    """Each assumption once if it is the same for all cells, else each value with its cells."""
    told = []
    known = [c for c in costs if c.estimate.assumed]
    for key in dict.fromkeys(key for c in known for key in c.estimate.assumed if key != METHODS):
        values: dict[str, list[Costs]] = {}
        for c in known:
            if key in c.estimate.assumed:
                values.setdefault(_value(c.estimate.assumed[key]), []).append(c)
        shown = [
            value if len(owners) == len(known) else f"{value} ({_whose(owners, known)})"
            for value, owners in values.items()
        ]
        told.append(f"{format.one_line(key).replace('_', ' ')} {' / '.join(shown)}")
    return told


def _whose(some: Sequence[Costs], every: Sequence[Costs]) -> str:
    return "all cells" if len(some) == len(every) > 1 else ", ".join(_label(c) for c in some)


def _value(value: Any) -> str:
    return format.one_line(value if isinstance(value, str) else json.dumps(value))


def _label(costs: Costs) -> str:
    return format.one_line(costs.cell.label)


def _scaled(value: int | None, unit: int, digits: int) -> str:
    return format.number(None if value is None else value / unit, digits)


def _rich(grid: Grid) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False, header_style="")
    for index, header in enumerate(grid.headers):
        shown.add_column(Text(header), justify="right" if index else "left", no_wrap=True, vertical="bottom")
    for row in grid.rows:
        shown.add_row(*(Text(value, _STYLES.get(value, "")) for value in row))
    return shown


def _stacked(grid: Grid, row: Sequence[str]) -> Any:
    from rich.text import Text

    pairs = zip(grid.headers[1:], row[1:], strict=True)
    shown = ", ".join(f"{' '.join(header.split())} {value}" for header, value in pairs if value != format.DASH)
    return Text.assemble((row[0], "bold"), f"\n  {shown}")

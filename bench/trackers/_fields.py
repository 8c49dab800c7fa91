"""What all trackers log, under the same names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError

if TYPE_CHECKING:
    from bench.plugins.execution import PhaseEnd, Step
    from bench.records.record import CellRecord
    from bench.spec.cell import Cell

GIB = 2**30


def need(name: str, *modules: str) -> None:
    """Raise SpecError unless the modules of the extra ``name`` are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise SpecError(
            f"run.trackers: {name} needs {' and '.join(missing)}, which is not installed; "
            f'run: python -m pip install "peft-freeze-bench[{name}]"'
        )


def run_name(cell: Cell) -> str:
    """``F-LoRA-LoRA rank=4 demo seed=42``."""
    seed = f"seed={cell.seed}"
    label = cell.label.removesuffix(f" {seed}")
    return f"{label} {cell.scale} {seed}"


def choices(cell: Cell) -> dict[str, str | float | bool]:
    """What tells a cell from the others of a spec, and the settings people ask for first."""
    train = cell.train
    length = {"epochs": train.epochs} if train.epochs is not None else {"steps": train.steps}
    found = {
        "spec": cell.spec,
        "scale": cell.scale,
        "model": cell.model.describe(),
        "data": cell.data.name,
        "seed": cell.seed,
        **{f"parts.{part}": action for part, action in cell.parts.items()},
        **cell.labels,
        **length,
        "batch_size": train.batch_size,
        "lr": train.optimizer.lr,
        "precision": train.precision,
    }
    return {name: plain for name, value in found.items() if (plain := _plain(value)) is not None}


def settings(cell: Cell) -> dict[str, str | float | bool]:
    """All settings that determine the cell's result, by their dotted places in a spec, and its values of the axes."""
    from bench.spec.cell import DETERMINING

    return dict(_flat(cell.model_dump(mode="json", include=set(DETERMINING)) | cell.labels, ""))


def step_values(step: Step) -> dict[str, float]:
    """Names and values of a step's curves."""
    timed = {} if step.step_s is None else {"train/step_s": step.step_s}
    return {"train/loss": step.loss, "train/lr": step.lr, **timed}


def phase_values(end: PhaseEnd) -> dict[str, float]:
    """Seconds, and peaks in GiB where there is a GPU."""
    peaks = {"allocated": end.allocated_peak_bytes, "reserved": end.reserved_peak_bytes}
    memory = {f"{end.phase}/{name}_peak_gib": peak / GIB for name, peak in peaks.items() if peak is not None}
    return {f"{end.phase}/seconds": end.seconds, **memory}


def results(record: CellRecord) -> dict[str, float]:
    """``result/<metric>`` in the unit of the tables, for every metric that was measured."""
    from bench import metrics

    values = {name: metrics.get(name).value(record) for name in metrics.names()}
    return {f"result/{name}": value for name, value in values.items() if value is not None}


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str | float | bool]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif (plain := _plain(value)) is not None:
            yield prefix + name, plain


def _plain(value: Any) -> str | float | bool | None:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value)

"""Trackers, which log a run beside its records: a module each, named as in ``run.trackers``.

All of them log the values of this module, under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError

if TYPE_CHECKING:  # a spec imports trackers for their settings, so they stay light
    from bench.execution.contracts import PhaseEnd, Step
    from bench.records.record import CellRecord
    from bench.spec.cell import Cell


Plain = str | float | bool


def require_modules(extra: str, *modules: str) -> None:
    """Raise SpecError unless the modules of the extra are installed."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise SpecError(
            f"run.trackers: {extra} needs {' and '.join(missing)}, which is not installed; "
            f'run: python -m pip install "peft-freeze-bench[{extra}]"'
        )


def run_name(cell: Cell) -> str:
    """``F-LoRA-LoRA rank=4 demo seed=42``."""
    seed = f"seed={cell.seed}"
    return f"{cell.label.removesuffix(f' {seed}')} {cell.scale} {seed}"


def main_settings(cell: Cell) -> dict[str, Plain]:
    """Settings that distinguish a cell within its spec, and the most important other settings."""
    train = cell.train
    settings = {
        "spec": cell.spec,
        "scale": cell.scale,
        "model": cell.model.describe(),
        "data": cell.data.name,
        "seed": cell.seed,
        **{f"parts.{part}": action for part, action in cell.parts.items()},
        **cell.labels,
        **({"epochs": train.epochs} if train.epochs is not None else {"steps": train.steps}),
        "batch_size": train.batch_size,
        "lr": train.optimizer.lr,
        "precision": train.precision,
    }
    return dict(_flat(settings, nested=False))


def all_settings(cell: Cell) -> dict[str, Plain]:
    """Every setting that determines the cell's result, by its dotted key, and the values of its axes."""
    from bench.spec.cell import DETERMINING

    return dict(_flat(cell.model_dump(mode="json", include=set(DETERMINING)) | cell.labels))


def step_values(step: Step) -> dict[str, float]:
    """Names and values of a step's curves."""
    timed = {} if step.step_s is None else {"train/step_s": step.step_s}
    return {"train/loss": step.loss, "train/lr": step.lr, **timed}


def phase_values(end: PhaseEnd) -> dict[str, float]:
    """Seconds and, on a GPU, peaks in GiB."""
    peaks = {"allocated": end.allocated_peak_bytes, "reserved": end.reserved_peak_bytes}
    memory = {f"{end.phase}/{name}_peak_gib": peak / 2**30 for name, peak in peaks.items() if peak is not None}
    return {f"{end.phase}/seconds": end.seconds, **memory}


def result_values(record: CellRecord) -> dict[str, float]:
    """``result/<metric>`` in the unit of the tables, for every measured metric."""
    from bench import metrics

    values = {name: metrics.get(name).value(record) for name in metrics.names()}
    return {f"result/{name}": value for name, value in values.items() if value is not None}


def _flat(values: Mapping[str, Any], prefix: str = "", *, nested: bool = True) -> Iterator[tuple[str, Plain]]:
    for name, value in values.items():
        if nested and isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value if isinstance(value, str | int | float | bool) else json.dumps(value)

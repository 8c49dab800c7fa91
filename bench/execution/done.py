"""Whether a stored record is what a run of its cell would give today: the one rule of runs, lists and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench import files
from bench.environment import Device, usable_gpus
from bench.errors import SpecError
from bench.execution import digests
from bench.records.record import CellRecord
from bench.spec.cell import Cell

UNKNOWN: Final = "unknown"
"""In place of a digest that cannot be told here; nothing is stale for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What decides a cell's result beside its settings, as it is now."""

    data_digest: str | None
    weights_digest: str | None
    """Null for random initialisation."""
    devices: frozenset[str] = frozenset()
    """Names of the devices that a run would take; empty where the device does not matter."""


def why_not_done(record: CellRecord | None, inputs: Inputs) -> str | None:
    """Why a run would do the cell (again), in a few words; None where it would not."""
    if record is None:
        return "not run"
    if not record.status.is_result:
        return str(record.status)
    if not record.is_final:
        return f"{record.status} beside other processes on the GPU"
    stale = why_stale(record, inputs)
    return None if stale is None else f"stale ({stale})"


def why_stale(record: CellRecord, inputs: Inputs) -> str | None:
    """Why a result is not that of the cell as it is now; None where it is, as far as can be told."""
    return next((reason for rule in _RULES if (reason := rule(record, inputs)) is not None), None)


def _other_data(record: CellRecord, inputs: Inputs) -> str | None:
    if inputs.data_digest in (UNKNOWN, record.data_digest):
        return None
    return "data changed" if record.data_digest is not None else "ended before its data were read"


def _other_weights(record: CellRecord, inputs: Inputs) -> str | None:
    return "weights changed" if inputs.weights_digest not in (UNKNOWN, record.weights_digest) else None


def _other_device(record: CellRecord, inputs: Inputs) -> str | None:
    ran_on = record.environment.get("device")
    if not inputs.devices or ran_on in inputs.devices:
        return None
    return f"ran on {ran_on}, not on {' or '.join(sorted(inputs.devices))}"


_RULES: Sequence[Callable[[CellRecord, Inputs], str | None]] = (_other_data, _other_weights, _other_device)


def inputs_of(cells: Sequence[Cell]) -> dict[str, Inputs]:
    """By ``cell_id``. Raises DataError or WeightsError if what the cells need is not here, SpecError for a device."""
    taken = _Digests(lambda digest: digest())
    devices = {device: _devices(device) for device in {cell.run.device for cell in cells}}
    return {cell.cell_id: taken.inputs(cell, devices[cell.run.device]) for cell in cells}


def inputs_known(cells: Sequence[Cell], *, any_device: bool) -> dict[str, Inputs]:
    """The same, as far as it can be told at once; with ``any_device`` a result counts wherever it was made."""
    taken = _Digests(_if_known)
    asked = set() if any_device else {cell.run.device for cell in cells}
    devices = {device: _devices_known(device) for device in asked}
    with files.limited_reading():
        return {cell.cell_id: taken.inputs(cell, devices.get(cell.run.device, frozenset())) for cell in cells}


def stale(cells: Sequence[Cell], records: Mapping[str, CellRecord]) -> dict[str, str]:
    """Of the stored results those that are of other data or model files than the cells now, by ``cell_id``: why.

    Where a digest cannot be told here, the newest result of the same settings says which one counts.
    """
    found = [(cell, records[cell.cell_id]) for cell in cells if cell.cell_id in records]
    results = [(cell, record) for cell, record in found if record.status.is_result]
    known = inputs_known([cell for cell, _ in results], any_device=True)
    newest: dict[str, CellRecord] = {}
    for cell, record in sorted(results, key=lambda pair: pair[1].finished_at or ""):
        if record.data_digest is not None:  # else it ended before any was taken
            newest[cell.data.model_dump_json()] = newest[_model_files(cell)] = record
    reasons = {}
    for cell, record in results:
        now = known[cell.cell_id]
        if now.data_digest == UNKNOWN and (last := newest.get(cell.data.model_dump_json())):
            now = replace(now, data_digest=last.data_digest)
        unknown = now.weights_digest == UNKNOWN or digests.lacks_files(cell)
        if unknown and (last := newest.get(_model_files(cell))):
            now = replace(now, weights_digest=last.weights_digest)
        if (reason := why_stale(record, now)) is not None:
            reasons[cell.cell_id] = reason
    return reasons


class _Digests:
    """Taken once for cells of the same settings."""

    def __init__(self, take: Callable[[Callable[[], str | None]], str | None]) -> None:
        self._take = take
        self._taken: dict[str, str | None] = {}

    def inputs(self, cell: Cell, devices: frozenset[str]) -> Inputs:
        return Inputs(
            data_digest=self._of(cell.data.model_dump_json(), lambda: digests.data_digest(cell)),
            weights_digest=self._of(_model_files(cell), lambda: digests.weights_digest(cell)),
            devices=devices,
        )

    def _of(self, settings: str, digest: Callable[[], str | None]) -> str | None:
        if settings not in self._taken:
            self._taken[settings] = self._take(digest)
        return self._taken[settings]


def _model_files(cell: Cell) -> str:
    """The same for cells whose model and methods name the same files, whether or not these are on this machine."""
    return f"{cell.model.model_dump_json()} {digests.method_paths(cell)}"


def _if_known(digest: Callable[[], str | None]) -> str | None:
    try:
        return digest()
    except Exception:  # whatever is wrong with the files, a run says it; lists and reports are of what was recorded
        return UNKNOWN


def _devices(device: Device) -> frozenset[str]:
    return frozenset(gpu.name for gpu in usable_gpus(device)) or frozenset({"cpu"})


def _devices_known(device: Device) -> frozenset[str]:
    try:
        return _devices(device)
    except SpecError:  # there is none of the kind asked for, so nothing would run
        return frozenset()

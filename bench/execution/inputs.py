"""Inputs of a cell beside its settings, and whether a stored record is a result of the present inputs.

Cell ids leave out the locations of files, so that results are portable; digests identify the contents.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import files, registry
from bench.environment import Device, usable_gpus
from bench.errors import SpecError, WeightsError
from bench.records.record import CellRecord
from bench.spec.cell import Cell

UNKNOWN: Final = "unknown"
"""Stands for a digest that cannot be computed here; makes no record stale."""
METHOD_FILES = re.compile(r"(_path|_file)$|^(adapters|shadow_model)$")
"""Fields of peft's methods that may name a file or folder: tokenizers, saved prompts, statistics, models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Present inputs of a cell beside its settings."""

    data_digest: str | None
    weights_digest: str | None
    """Null for random initialisation."""
    devices: frozenset[str] = frozenset()
    """Names of the devices that a run would use; empty if the device does not matter."""


def inputs_of(cells: Sequence[Cell]) -> dict[str, Inputs]:
    """``cell_id`` -> inputs. Raises DataError or WeightsError for missing files, SpecError for a missing device."""
    return _inputs(cells, lambda digest: digest(), _devices)


def inputs_known(cells: Sequence[Cell], *, any_device: bool) -> dict[str, Inputs]:
    """Like ``inputs_of``, as far as known without reading much; with ``any_device``, for results of all devices."""

    def if_known(digest: Callable[[], str | None]) -> str | None:
        try:
            return digest()
        except Exception:  # whatever is wrong with the files, a run says so; lists and reports show what was recorded
            return UNKNOWN

    def devices_known(device: Device) -> frozenset[str]:
        try:
            return frozenset() if any_device else _devices(device)
        except SpecError:  # no such device: nothing would run
            return frozenset()

    with files.limited_reading():
        return _inputs(cells, if_known, devices_known)


def why_not_done(record: CellRecord | None, inputs: Inputs) -> str | None:
    """Why a run would execute the cell (again), in a few words; None if it would not."""
    if record is None:
        return "not run"
    if not record.status.is_result:
        return str(record.status)
    if not record.is_final:
        return f"{record.status} beside other processes on the GPU"
    stale = why_stale(record, inputs)
    return None if stale is None else f"stale ({stale})"


def why_stale(record: CellRecord, inputs: Inputs) -> str | None:
    """Why a result does not match these inputs; None if it does, as far as known."""
    if inputs.data_digest not in (UNKNOWN, record.data_digest):
        return "data changed" if record.data_digest is not None else "ended before its data were read"
    if inputs.weights_digest not in (UNKNOWN, record.weights_digest):
        return "weights changed"
    ran_on = record.environment.get("device")
    if inputs.devices and ran_on not in inputs.devices:
        return f"ran on {ran_on}, not on {' or '.join(sorted(inputs.devices))}"
    return None


def stale(cells: Sequence[Cell], records: Mapping[str, CellRecord]) -> dict[str, str]:
    """``cell_id`` -> why the result is stale, i.e. made from other data or model files than the cell has now.

    In place of an unknown digest stands that of the newest result with the same settings.
    """
    results = [(cell, record) for cell in cells if (record := records.get(cell.cell_id)) and record.status.is_result]
    known = inputs_known([cell for cell, _ in results], any_device=True)
    newest: dict[str, CellRecord] = {}
    for cell, record in sorted(results, key=lambda pair: pair[1].finished_at or ""):
        if record.data_digest is not None:  # else it ended before any digest was computed
            newest[cell.data.model_dump_json()] = newest[_model_files(cell)] = record
    reasons = {}
    for cell, record in results:
        now = known[cell.cell_id]
        if now.data_digest == UNKNOWN and (last := newest.get(cell.data.model_dump_json())):
            now = replace(now, data_digest=last.data_digest)
        if (now.weights_digest == UNKNOWN or _lacks_files(cell)) and (last := newest.get(_model_files(cell))):
            now = replace(now, weights_digest=last.weights_digest)
        if (reason := why_stale(record, now)) is not None:
            reasons[cell.cell_id] = reason
    return reasons


def data_digest(cell: Cell) -> str:
    """Digest of annotations and images. Raises DataError if they are missing."""
    return registry.load("datasets", cell.data.name).digest(cell.data)


def weights_digest(cell: Cell) -> str | None:
    """Digest of the files that the model and its methods start from; null if there are none.

    Raises WeightsError if they are missing.
    """
    model = registry.load("models", cell.model.family).weights_digest(cell.model)
    named = [Path(name) for name in _method_paths(cell) if os.path.exists(name)]  # noqa: PTH110 - some are Hub ids
    if not named:
        return model
    total = hashlib.sha256((model or "").encode())
    for path in named:
        total.update(_content(path).encode())
    return total.hexdigest()


def _inputs(
    cells: Sequence[Cell],
    digested: Callable[[Callable[[], str | None]], str | None],
    devices_of: Callable[[Device], frozenset[str]],
) -> dict[str, Inputs]:
    """``cell_id`` -> inputs; each digest is computed once for all cells with the same settings."""
    digests: dict[str, str | None] = {}

    def once(settings: str, digest: Callable[[], str | None]) -> str | None:
        if settings not in digests:
            digests[settings] = digested(digest)
        return digests[settings]

    devices = {device: devices_of(device) for device in {cell.run.device for cell in cells}}
    return {
        cell.cell_id: Inputs(
            data_digest=once(cell.data.model_dump_json(), partial(data_digest, cell)),
            weights_digest=once(_model_files(cell), partial(weights_digest, cell)),
            devices=devices[cell.run.device],
        )
        for cell in cells
    }


def _devices(device: Device) -> frozenset[str]:
    return frozenset(gpu.name for gpu in usable_gpus(device)) or frozenset({"cpu"})


def _model_files(cell: Cell) -> str:
    """Key that is equal for cells whose model and methods name the same files, on this machine or not."""
    return f"{cell.model.model_dump_json()} {_method_paths(cell)}"


def _method_paths(cell: Cell) -> list[str]:
    """Files, folders and Hub ids that the methods name, in the order of the fields."""
    return [name for method in cell.methods.values() for name in _named(method.model_dump(mode="json"), "method")]


def _lacks_files(cell: Cell) -> bool:
    """Whether the methods name a file or folder (not a Hub id) that is not on this machine."""
    return any(Path(name).is_absolute() and not Path(name).exists() for name in _method_paths(cell))


def _named(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _named(child, field if METHOD_FILES.search(field) else str(key))
    elif isinstance(value, str) and METHOD_FILES.search(field):
        yield value


def _content(path: Path) -> str:
    """SHA-256 (hex) of a file, or of the names and contents of all files below a folder."""
    names = [path.name]
    if path.is_dir():
        names = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    try:
        hashes = files.sha256_of_all(path if path.is_dir() else path.parent, names)
    except files.MissingFilesError as error:
        raise WeightsError(f"{path}: {error.names[0]} cannot be read: check its permissions") from None
    listed = "".join(f"{name}\0{digest}\n" for name, digest in zip(names, hashes, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()

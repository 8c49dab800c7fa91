"""NVIDIA's management library: the devices that CUDA shows a process, in its order, found without CUDA itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A GPU, or an instance of one that is split (MIG)."""

    uuid: str
    handle: Any
    """NVML's."""

    @property
    def is_instance(self) -> bool:
        """Whether it is part of a GPU in MIG mode."""
        return self.uuid.startswith("MIG-")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Board:
    """A GPU as NVML counts it, and what CUDA can use of it: itself, or in MIG mode its instances."""

    uuid: str
    devices: tuple[Device, ...]


@contextmanager
def session() -> Iterator[Any]:
    """The ``pynvml`` module, initialised, or None without a driver."""
    nvml = start()
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.nvmlShutdown()


def start() -> Any:
    """As ``session``, for a use that ends elsewhere."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # LibraryNotFound on a machine without a driver
        return None
    return pynvml


def visible(nvml: Any, chosen: str | None) -> dict[str, Device]:
    """Entry for ``CUDA_VISIBLE_DEVICES`` -> device, in the order of ``chosen``, that variable; all if it is null.

    An entry that names no device, or several, hides those after it, as for CUDA. An entry that names a GPU in MIG mode
    means its first instance, the only one that CUDA would show; a device named twice counts once. Raises NVMLError.
    """
    boards = list(_boards(nvml))
    if chosen is None:
        return {device.uuid: device for board in boards for device in board.devices}
    found: dict[str, Device] = {}
    for entry in (each.strip() for each in chosen.split(",")):
        device = _named(boards, entry)
        if device is None:
            break
        if device not in found.values():
            found[device.uuid if device.is_instance else entry] = device
    return found


def _named(boards: list[_Board], entry: str) -> Device | None:
    if entry.isdecimal():
        of_board = boards[int(entry)].devices if int(entry) < len(boards) else ()
        return of_board[0] if of_board else None
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    named = [board.devices for board in boards if board.uuid.startswith(entry)]
    named += [(d,) for board in boards for d in board.devices if d.is_instance and d.uuid.startswith(entry)]
    return named[0][0] if len(named) == 1 and named[0] else None


def _boards(nvml: Any) -> Iterator[_Board]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        instances = _instances(nvml, handle)
        yield _Board(uuid=uuid, devices=(Device(uuid=uuid, handle=handle),) if instances is None else instances)


def _instances(nvml: Any, handle: Any) -> tuple[Device, ...] | None:
    """Of a GPU in MIG mode; null for any other."""
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return None
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:  # a GPU, or a driver, without MIG
        return None
    found = []
    for index in range(most):
        with suppress(nvml.NVMLError):  # none at this place, or one that is not ours to use
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            found.append(Device(uuid=str(nvml.nvmlDeviceGetUUID(instance)), handle=instance))
    return tuple(found)

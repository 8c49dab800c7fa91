"""NVML, NVIDIA's management library: the devices that CUDA shows a process, in CUDA's order, without CUDA itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A GPU or a MIG instance."""

    uuid: str
    handle: Any
    """NVML's handle."""

    @property
    def is_instance(self) -> bool:
        """Whether the device is a MIG instance."""
        return self.uuid.startswith("MIG-")


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
    """Like ``session``, but the caller calls ``nvmlShutdown``."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # LibraryNotFound on a machine without a driver
        return None
    return pynvml


def visible(nvml: Any, chosen: str | None) -> dict[str, Device]:
    """Entry for ``CUDA_VISIBLE_DEVICES`` -> device, in the order of ``chosen``, that variable; all if it is None.

    As in CUDA, an entry that names no device, or several, hides those after it, an entry that names a GPU in MIG mode
    means its first instance, and a device named twice counts once. Raises NVMLError.
    """
    boards = _boards(nvml)
    if chosen is None:
        return {device.uuid: device for devices in boards.values() for device in devices}
    chosen_devices: dict[str, Device] = {}
    for entry in (part.strip() for part in chosen.split(",")):
        device = _named(boards, entry)
        if device is None:
            break
        if device not in chosen_devices.values():
            chosen_devices[device.uuid if device.is_instance else entry] = device
    return chosen_devices


def _named(boards: dict[str, list[Device]], entry: str) -> Device | None:
    if entry.isdecimal():
        matches = list(boards.values())[int(entry) : int(entry) + 1]
    elif entry.startswith(("GPU-", "MIG-")):
        matches = [devices for uuid, devices in boards.items() if uuid.startswith(entry)]
        instances = [device for devices in boards.values() for device in devices if device.is_instance]
        matches += [[instance] for instance in instances if instance.uuid.startswith(entry)]
    else:
        return None
    return matches[0][0] if len(matches) == 1 and matches[0] else None


def _boards(nvml: Any) -> dict[str, list[Device]]:
    """UUID of each GPU, as NVML orders them -> devices that CUDA can use on it: itself, or its MIG instances."""
    boards = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        instances = _instances(nvml, handle)
        boards[uuid] = [Device(uuid=uuid, handle=handle)] if instances is None else instances
    return boards


def _instances(nvml: Any, handle: Any) -> list[Device] | None:
    """MIG instances of a GPU; None if it is not in MIG mode."""
    try:
        if not nvml.nvmlDeviceGetMigMode(handle)[0]:
            return None
        limit = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:  # a GPU or a driver without MIG
        return None
    instances = []
    for index in range(limit):
        with suppress(nvml.NVMLError):  # no instance at this index, or one that this user may not use
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            instances.append(Device(uuid=str(nvml.nvmlDeviceGetUUID(instance)), handle=instance))
    return instances

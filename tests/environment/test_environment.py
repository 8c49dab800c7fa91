"""Versions, hardware and revision are found without torch, and a missing or broken driver is no error."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from bench import environment
from bench.errors import SpecError

H100, T4, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA T4", "NVIDIA A100-SXM4-40GB"
INSTANCE = f"{A100} MIG 1g.5gb"
VERSIONS = environment.versions.__wrapped__
INSTANCES = {10: "MIG-1111", 12: "MIG-1222"}
"""Handles of two of the seven instances that the A100 could have."""


def install(
    monkeypatch: pytest.MonkeyPatch,
    *,
    names: tuple[str, str] = (H100, T4),
    instances: Mapping[int, str] | None = None,
    torch: str = "2.15.0",
) -> None:
    """Stand in for NVML with two GPUs, the first in MIG mode where it has ``instances``; the second tells little."""
    uuids = {0: "GPU-aaaa-1", 1: "GPU-bbbb-2", **(instances or {})}

    def refuse(code: int) -> Any:
        raise pynvml.NVMLError(code)

    def first(value: object) -> Any:
        """A function of a handle that the second GPU does not support."""
        return lambda handle: refuse(pynvml.NVML_ERROR_NOT_SUPPORTED) if handle == 1 else value

    functions = {
        "Init": lambda: None,
        "Shutdown": lambda: None,
        "SystemGetDriverVersion": lambda: "570.1",
        "DeviceGetCount": lambda: 2,
        "DeviceGetHandleByIndex": lambda n: n if n in (0, 1) else refuse(pynvml.NVML_ERROR_INVALID_ARGUMENT),
        "DeviceGetUUID": lambda handle: uuids[handle],
        "DeviceGetName": lambda handle: names[handle] if handle < 2 else INSTANCE,
        "DeviceGetMemoryInfo": first(SimpleNamespace(total=80 << 30)),
        "DeviceGetCudaComputeCapability": first([9, 0]),
    }
    if instances is not None:
        functions |= {
            "DeviceGetMigMode": first([1, 1]),
            "DeviceGetMaxMigDeviceCount": lambda _: 7,
            "DeviceGetMigDeviceHandleByIndex": lambda _, n: (
                10 + n if 10 + n in instances else refuse(pynvml.NVML_ERROR_NOT_FOUND)
            ),
        }
    for name, function in functions.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", function)
    monkeypatch.setattr(environment, "version", lambda _: torch)
    monkeypatch.setattr(environment, "versions", VERSIONS)  # else they are kept for other tests


def tokens(visible: str | None) -> list[str]:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [gpu.token for gpu in environment.visible_gpus(environ)]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        ("", []),
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("-1", []),
        ("0,9,1", ["0"]),
        ("MIG-unknown", []),
        ("GPU-", []),  # several devices
        ("1,GPU-bbbb-2,0", ["1", "0"]),  # one device named twice
        ("NoDevFiles", []),
    ],
)
def test_visible_devices_are_respected(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    install(monkeypatch)
    assert tokens(visible) == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-1111", "MIG-1222", "GPU-bbbb-2"]),
        ("MIG-1222,MIG-1111", ["MIG-1222", "MIG-1111"]),
        ("MIG-12", ["MIG-1222"]),
        ("MIG-1", []),
        ("0,1", ["MIG-1111", "1"]),
        ("GPU-aaaa", ["MIG-1111"]),
        ("MIG-1111,GPU-aaaa,1", ["MIG-1111", "1"]),
    ],
)
def test_instances_stand_for_a_gpu_in_mig_mode(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    """With the name that torch gives an instance, by which a record counts as done."""
    install(monkeypatch, names=(A100, T4), instances=INSTANCES)
    assert tokens(visible) == expected
    assert {gpu.name for gpu in environment.visible_gpus({}) if gpu.token.startswith("MIG-")} == {INSTANCE}


def test_a_gpu_in_mig_mode_without_instances_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, names=(A100, T4), instances={})
    assert tokens(None) == ["GPU-bbbb-2"]
    assert tokens("0,1") == []


def test_numbers_among_unlike_gpus_must_be_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA may count the T4 first, NVML does not."""
    install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with pytest.raises(SpecError, match=r"CUDA_VISIBLE_DEVICES=1 is ambiguous .* set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        environment.usable_gpus()
    for variables, names in (
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (H100, T4)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, (H100, T4)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (T4, T4)),
    ):
        with monkeypatch.context() as patch:
            install(patch, names=names)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert [gpu.name for gpu in environment.usable_gpus()] == [T4]


def test_a_gpu_has_its_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = environment.visible_gpus()
    assert (first.name, first.memory_bytes, first.capability) == (H100, 80 << 30, (9, 0))
    assert (second.name, second.memory_bytes, second.capability) == (T4, None, None)
    assert environment.usable_gpus() == environment.usable_gpus("cuda") == [first, second]
    assert environment.usable_gpus("cpu") == []
    assert environment.describe()["gpu_driver"] == "570.1"


def fail(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetName"])
def test_without_a_driver_or_with_a_broken_one_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    install(monkeypatch)
    monkeypatch.setattr(pynvml, function, fail)
    assert environment.visible_gpus({}) == environment.usable_gpus() == environment.describe()["gpus"] == []
    with pytest.raises(SpecError, match="no CUDA device is visible"):
        environment.usable_gpus("cuda")


def test_a_cpu_build_of_torch_uses_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, torch="2.15.0+cpu")
    assert len(environment.visible_gpus({})) == 2
    assert environment.usable_gpus() == []


def test_versions_and_hardware_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native")  # the older of torch's two names
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    found = environment.describe()
    assert found["pytorch_alloc_conf"] == "backend:native"
    assert (found["cublas_workspace_config"], found["nvidia_tf32_override"]) == (":4096:8", None)
    assert {"python", "torch", "transformers", "peft", "timm"} <= set(found["versions"])
    assert found["ram_bytes"] > 1 << 28
    assert found["cores"] >= 1
    assert found["cpu"]


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_it_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = environment._git_revision.__wrapped__
    assert revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert revision(tmp_path) is None, "no commit yet"
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    clean = revision(tmp_path)
    (tmp_path / "file").write_text("two")
    dirty = revision(tmp_path)
    assert clean is not None
    assert dirty is not None
    assert (clean.dirty, dirty.dirty, dirty.commit) == (False, True, clean.commit)
    monkeypatch.setenv("PATH", "")
    assert revision(tmp_path) is None, "no git"

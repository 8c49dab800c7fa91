"""Versions and hardware are found without torch, and a missing or broken driver is no error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pynvml
import pytest

from bench import environment
from bench.errors import SpecError


class FakeNvml:
    """Two GPUs of different kinds, behind the functions of ``pynvml`` that are used."""

    uuids = ("GPU-aaaa-1", "GPU-bbbb-2")
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA T4")

    def install(self, monkeypatch: pytest.MonkeyPatch, *, torch: str = "2.15.0") -> None:
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))
        monkeypatch.setattr(environment, "version", lambda _: torch)

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if not 0 <= index < len(self.uuids):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.uuids[handle]

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self.names[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=80 << 30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> list[int]:  # noqa: N802
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [9, 0]


@pytest.mark.parametrize(
    ("visible", "tokens"),
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
def test_visible_devices_are_respected(monkeypatch: pytest.MonkeyPatch, visible: str | None, tokens: list[str]) -> None:
    FakeNvml().install(monkeypatch)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.token for gpu in environment.visible_gpus(environ)] == tokens


class MigNvml(FakeNvml):
    """An A100 with two instances, in MIG mode, beside a T4 that knows no MIG."""

    names = ("NVIDIA A100-SXM4-40GB", "NVIDIA T4")
    instances: ClassVar = {10: "MIG-1111", 12: "MIG-1222"}

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, _handle: int) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _handle: int, index: int) -> int:  # noqa: N802
        if 10 + index not in self.instances:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return 10 + index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.instances.get(handle) or super().nvmlDeviceGetUUID(handle)

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "NVIDIA A100-SXM4-40GB MIG 1g.5gb" if handle in self.instances else super().nvmlDeviceGetName(handle)


@pytest.mark.parametrize(
    ("visible", "tokens"),
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
    monkeypatch: pytest.MonkeyPatch, visible: str | None, tokens: list[str]
) -> None:
    """With the name that torch gives an instance, by which a record counts as done."""
    MigNvml().install(monkeypatch)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    gpus = environment.visible_gpus(environ)
    assert [gpu.token for gpu in gpus] == tokens
    assert {gpu.name for gpu in gpus if gpu.token.startswith("MIG-")} <= {"NVIDIA A100-SXM4-40GB MIG 1g.5gb"}


def test_a_gpu_in_mig_mode_without_instances_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = MigNvml()
    nvml.install(monkeypatch)
    monkeypatch.setattr(MigNvml, "instances", {})
    assert [gpu.token for gpu in environment.visible_gpus({})] == ["GPU-bbbb-2"]
    assert environment.visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == []


def test_numbers_among_unlike_gpus_must_be_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA may count the T4 first, NVML does not."""
    FakeNvml().install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with pytest.raises(SpecError, match=r"CUDA_VISIBLE_DEVICES=1 is ambiguous .* set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        environment.usable_gpus()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [gpu.name for gpu in environment.usable_gpus()] == ["NVIDIA T4"]
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb")
    assert [gpu.name for gpu in environment.usable_gpus()] == ["NVIDIA T4"]
    monkeypatch.setattr(FakeNvml, "names", ("NVIDIA T4", "NVIDIA T4"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.token for gpu in environment.usable_gpus()] == ["1"]


def test_a_gpu_has_its_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = environment.visible_gpus()
    assert (first.name, first.memory_bytes) == ("NVIDIA H100 80GB HBM3", 80 << 30)
    assert second.memory_bytes is None
    assert (first.capability, second.capability) == ((9, 0), None)
    assert environment.usable_gpus() == environment.usable_gpus("cuda") == [first, second]
    assert environment.usable_gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bbbb-2")
    assert [gpu.name for gpu in environment.usable_gpus()] == ["NVIDIA T4"]
    assert environment.describe()["gpu_driver"] == "570.1"


def test_without_a_driver_everything_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert environment.usable_gpus() == []
    assert environment.describe()["gpus"] == []
    with pytest.raises(SpecError, match="no CUDA device is visible"):
        environment.usable_gpus("cuda")


def test_a_cpu_build_of_torch_uses_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch, torch="2.15.0+cpu")
    assert len(environment.visible_gpus({})) == 2
    assert environment.usable_gpus() == []


def fail(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)


def test_a_driver_that_fails_later_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml().install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", fail)
    assert environment.visible_gpus({}) == []


def test_versions_and_hardware_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from bench import environment; environment.describe(); environment.usable_gpus()\n"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert environment._git_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert environment._git_revision.__wrapped__(tmp_path) is None, "no commit yet"
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    clean = environment._git_revision.__wrapped__(tmp_path)
    assert clean is not None
    assert not clean.dirty
    (tmp_path / "file").write_text("two")
    dirty = environment._git_revision.__wrapped__(tmp_path)
    assert dirty is not None
    assert dirty.dirty
    assert dirty.commit == clean.commit


def test_no_git_no_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert environment._git_revision(tmp_path) is None

"""Versions, hardware and source revision, found without importing torch: the runner and the worker share this."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from bench import __version__
from bench.errors import SpecError

PACKAGES = ("torch", "torchvision", "transformers", "peft", "timm", "tokenizers", "safetensors", "numpy", "pillow")
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A CUDA device this process may use."""

    token: str
    """What ``CUDA_VISIBLE_DEVICES`` must hold for this device alone."""
    name: str
    """As NVML and torch print it."""
    memory_bytes: int | None = None
    """Total memory; null if NVML does not say."""
    capability: tuple[int, int] | None = None
    """Compute capability; null if NVML does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """The source that ran."""

    commit: str
    dirty: bool
    """Whether tracked files differ from the commit."""


def describe() -> dict[str, Any]:
    """The environment of a record, except what only torch knows (device in use, CUDA version, threads)."""
    revision = git_revision()
    return {
        "versions": _versions(),
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in visible_gpus()],
        "gpu_driver": _driver(),
        "git": asdict(revision) if revision else None,
        "pytorch_alloc_conf": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def usable_gpus(device: Device = "auto") -> list[Gpu]:
    """GPUs a cell with this ``run.device`` may be pinned to; none: it runs on the CPU.

    Raises SpecError if ``cuda`` is asked for and there is none.
    """
    gpus = [] if device == "cpu" or not torch_has_cuda() else visible_gpus()
    if device == "cuda" and not gpus:
        raise SpecError("run.device is cuda, but no CUDA device is visible; use --set run.device=auto or cpu")
    return gpus


def torch_has_cuda() -> bool:
    """Whether the installed torch may use CUDA at all, told by its version only (``2.11.0+cpu`` may not)."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """What NVML lists, narrowed to ``CUDA_VISIBLE_DEVICES`` where that is set; empty without a working driver."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    with _nvml() as nvml:
        if nvml is None:
            return []
        try:
            return _all_gpus(nvml) if chosen is None else list(_chosen_gpus(nvml, chosen.split(",")))
        except nvml.NVMLError:
            return []


def git_revision() -> Revision | None:
    """Commit of the checkout this package runs from; null for an installed package or without git."""
    return _git_revision(Path(__file__).resolve().parents[1])


@cache
def _git_revision(root: Path) -> Revision | None:
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None
    return Revision(commit=commit.strip(), dirty=bool(status.strip()))


def child_environ() -> dict[str, str]:
    """Our environment for a Python process that imports this package, also from a checkout that is not installed."""
    environ, root = dict(os.environ), Path(__file__).resolve().parents[1]
    if (root / "pyproject.toml").exists():
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environ.get("PYTHONPATH")]))
    return environ


def _git(root: Path, *arguments: str) -> str | None:
    environ = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True, env=environ
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@contextmanager
def _nvml() -> Iterator[Any]:
    """The ``pynvml`` module, initialised, or None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # LibraryNotFound on a machine without a driver
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _all_gpus(nvml: Any) -> list[Gpu]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    return [_gpu(nvml, nvml.nvmlDeviceGetUUID(handle), handle) for handle in handles]


def _chosen_gpus(nvml: Any, tokens: list[str]) -> Iterator[Gpu]:
    for token in tokens:
        try:
            handle = _handle(nvml, token.strip())
        except (nvml.NVMLError, ValueError):
            return  # as CUDA does: what follows an unknown device is not visible
        yield _gpu(nvml, token.strip(), handle)


def _handle(nvml: Any, token: str) -> Any:
    """Device of an entry of ``CUDA_VISIBLE_DEVICES``: a number, or the UUID of a GPU or MIG instance, or its start."""
    if token.startswith(("GPU-", "MIG-")):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if nvml.nvmlDeviceGetUUID(handle).startswith(token):
                return handle
        return nvml.nvmlDeviceGetHandleByUUID(token)
    return nvml.nvmlDeviceGetHandleByIndex(int(token))


def _gpu(nvml: Any, token: str, handle: Any) -> Gpu:
    memory: int | None
    capability: tuple[int, int] | None
    try:
        memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        memory = None
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = int(major), int(minor)
    except nvml.NVMLError:
        capability = None
    return Gpu(token=token, name=str(nvml.nvmlDeviceGetName(handle)), memory_bytes=memory, capability=capability)


def _driver() -> str | None:
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            return str(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError:
            return None


@cache
def _versions() -> dict[str, str]:
    found = {"peft-freeze-bench": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

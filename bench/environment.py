"""The machine and the process: versions, hardware, source revision and host memory, without importing torch."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from bench import nvml
from bench import versions as tested
from bench.errors import SpecError
from bench.units import size_text

PACKAGES = ("torch", "torchvision", "transformers", "peft", "timm", "tokenizers", "safetensors", "numpy", "pillow")
Device = Literal["auto", "cpu", "cuda"]
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_CUBLAS_WORKSPACE_CACHE",
    "NVIDIA_TF32_OVERRIDE",
)
"""Environment variables, recorded as set, that choose the GPU, its precision and the size of cuBLAS's workspaces."""
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|not enough memory: you tried|[Cc]annot allocate memory(?! in static TLS)|std::bad_alloc"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
    r"|Memory allocation still failed|^(?:[\w.]*[._])?(?:Array)?MemoryError\b",
    re.MULTILINE,
)
"""Out-of-memory messages of torch's allocator, the C library, C++, the dynamic linker, OpenBLAS, Python and NumPy."""
_LAST_LINES = 8
"""Lines at the end of a log that are searched; the process survived what is above them."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A CUDA device this process may use."""

    token: str
    """Entry of ``CUDA_VISIBLE_DEVICES`` that selects this device."""
    name: str
    """Name that NVML and torch print."""
    memory_bytes: int | None = None
    """Total memory; None if NVML does not report it."""
    capability: tuple[int, int] | None = None
    """Compute capability; None if NVML does not report it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """Revision of the source."""

    commit: str
    dirty: bool
    """Whether tracked files differ from the commit."""


def describe() -> dict[str, Any]:
    """The environment of a record, except what only torch knows (device in use, CUDA version, threads)."""
    revision = git_revision()
    return {
        "versions": versions(),
        "tested_versions": tested.describe(),
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in visible_gpus()],
        "gpu_driver": _driver(),
        "git": asdict(revision) if revision else None,
        "pytorch_alloc_conf": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        **{name.lower(): os.environ.get(name) for name in VARIABLES},
    }


def usable_gpus(device: Device = "auto") -> list[Gpu]:
    """GPUs that a cell with this ``run.device`` may be pinned to; empty if it runs on the CPU.

    Raises SpecError if ``cuda`` is set without a visible GPU, or if ``CUDA_VISIBLE_DEVICES`` is ambiguous.
    """
    gpus = [] if device == "cpu" or not torch_has_cuda() else visible_gpus()
    if device == "cuda" and not gpus:
        raise SpecError("run.device is cuda, but no CUDA device is visible; use --set run.device=auto or cpu")
    if gpus:
        _check_numbers()
    return gpus


def _check_numbers() -> None:
    # CUDA numbers GPUs from the fastest on, NVML by bus order: they agree only among GPUs of one model or with
    # CUDA_DEVICE_ORDER=PCI_BUS_ID.
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or not any(c.strip().isdecimal() for c in chosen.split(",")):
        return
    models = {gpu.name for gpu in visible_gpus({})}
    if len(models) > 1:
        raise SpecError(
            f"CUDA_VISIBLE_DEVICES={chosen} is ambiguous among GPUs of several models ({', '.join(sorted(models))}): "
            "name them by UUID, as nvidia-smi -L prints them, or set CUDA_DEVICE_ORDER=PCI_BUS_ID and count as "
            "nvidia-smi does"
        )


def torch_has_cuda() -> bool:
    """Whether the installed torch can use CUDA, judged by its version alone (``2.11.0+cpu`` cannot)."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[Gpu]:
    """GPUs that NVML lists, in the order of ``CUDA_VISIBLE_DEVICES`` if it is set; empty without a working driver."""
    with nvml.session() as library:
        if library is None:
            return []
        try:
            devices = nvml.visible(library, environ.get("CUDA_VISIBLE_DEVICES"))
            return [_gpu(library, token, device.handle) for token, device in devices.items()]
        except library.NVMLError:
            return []


def git_revision() -> Revision | None:
    """Commit of the checkout that this package runs from; None for an installed package or without git."""
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
    """Environment variables for a child that imports this package, also from a checkout that is not installed."""
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


def _gpu(library: Any, token: str, handle: Any) -> Gpu:
    memory: int | None
    capability: tuple[int, int] | None
    try:
        memory = int(library.nvmlDeviceGetMemoryInfo(handle).total)
    except library.NVMLError:
        memory = None
    try:
        major, minor = library.nvmlDeviceGetCudaComputeCapability(handle)
        capability = int(major), int(minor)
    except library.NVMLError:
        capability = None
    return Gpu(token=token, name=str(library.nvmlDeviceGetName(handle)), memory_bytes=memory, capability=capability)


def _driver() -> str | None:
    with nvml.session() as library:
        if library is None:
            return None
        try:
            return str(library.nvmlSystemGetDriverVersion())
        except library.NVMLError:
            return None


@cache
def versions() -> dict[str, str]:
    """Installed versions of this package, Python and the libraries that may affect a result."""
    installed = {"peft-freeze-bench": tested.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


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


def is_out_of_host_memory(error: BaseException) -> bool:
    """Whether an exception reports that host memory, or this process's limit of it, is exhausted."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | ImportError | OSError) and bool(_OUT_OF_MEMORY.search(str(error)))


def out_of_memory_line(log: str) -> str | None:
    """Line at the end of a dead process's log that reports host memory exhausted; None without one."""
    lines = log.splitlines()[-_LAST_LINES:]
    return next((line.strip() for line in reversed(lines) if _OUT_OF_MEMORY.search(line)), None)


def address_space_limit() -> str:
    """``; its address space is limited to 4 GiB (ulimit -v)``; empty without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if soft == resource.RLIM_INFINITY else f"; its address space is limited to {size_text(soft)} (ulimit -v)"


def die_with_parent(parent: str | None) -> None:
    """Have Linux kill this process when its parent dies, so that a killed runner leaves no worker behind.

    ``parent``: process id of the runner, to notice that it died before this call.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the runner has ended")

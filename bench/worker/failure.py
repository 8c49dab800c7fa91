"""From an exception to how a cell ended."""

from __future__ import annotations

import traceback

import torch

from bench.errors import BenchError, DivergedError
from bench.host_memory import address_space_limit, is_out_of_host_memory
from bench.record import Failure, Status

_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch writes into a plain RuntimeError when the GPU or cuBLAS has no memory left."""
HOST = "HostOutOfMemory"
"""Type of the failure where it was the host's memory."""

_TAIL_LINES = 30


def status_of(error: Exception) -> Status:
    """``oom`` and ``diverged`` are results; every other exception is an ``error``."""
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    if isinstance(error, torch.OutOfMemoryError) or is_out_of_host_memory(error):
        return Status.OOM
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return Status.OOM
    return Status.ERROR


def failure_of(error: Exception, *, phase: str, step: int | None) -> Failure:
    """The failure as it is recorded; a fault of ours brings the end of its traceback along."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    ours = status_of(error) is Status.ERROR and not isinstance(error, BenchError)
    host = not isinstance(error, torch.OutOfMemoryError) and is_out_of_host_memory(error)
    return Failure(
        type=HOST if host else type(error).__name__,
        message=(str(error) or repr(error)) + (address_space_limit() if host else ""),
        phase=phase,
        step=step,
        log_tail="\n".join(lines[-_TAIL_LINES:]) if ours else "",
    )

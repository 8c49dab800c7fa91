"""From an exception to how a cell ended."""

from __future__ import annotations

import traceback

import torch

from bench.errors import BenchError, DivergedError
from bench.record import Failure, Status

_OUT_OF_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)
"""What torch writes into a plain RuntimeError when the GPU, cuBLAS or the host's allocator has no memory left."""

_TAIL_LINES = 30


def status_of(error: Exception) -> Status:
    """``oom`` and ``diverged`` are results; every other exception is an ``error``."""
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Status.OOM
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return Status.OOM
    return Status.ERROR


def failure_of(error: Exception, *, phase: str, step: int | None) -> Failure:
    """The failure as it is recorded; a fault of ours brings the end of its traceback along."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    ours = status_of(error) is Status.ERROR and not isinstance(error, BenchError)
    return Failure(
        type=type(error).__name__,
        message=str(error) or repr(error),
        phase=phase,
        step=step,
        log_tail="\n".join(lines[-_TAIL_LINES:]) if ours else "",
    )

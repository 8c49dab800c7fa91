"""From an exception to how a cell ended."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

import torch

from bench.environment import address_space_limit, is_out_of_host_memory
from bench.errors import BenchError, DivergedError
from bench.records.record import HOST_OUT_OF_MEMORY, Failure, Status

# Messages of PyTorch, CUDA's libraries and Triton for want of GPU memory, from the sources and binaries of torch 2.14,
# cuDNN 9 and Triton 3.8. Each with the library's words around it, as many other messages mention memory.
_OUT_OF_MEMORY = re.compile(
    r"""
    CUDA\ (error|driver\ error):\ out\ of\ memory              # of a kernel, of the driver, of pinned memory
    | ^CUDA\ out\ of\ memory
    | Triton\ Error\ \[CUDA\]:\ out\ of\ memory
    | CUDA\ ran\ out\ of\ memory\ outside\ PyTorch           # cuDNN compiling a kernel
    | \b(CUBLAS|CUSOLVER|CUSPARSE|CUDNN)_STATUS_ALLOC_FAILED\b
    | \bCUFFT_ALLOC_FAILED\b
    | \bCUDNN_STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED\b
    | CUDA\ error:\ insufficient\ resources\ when\ calling\ `cusparse  # cuSPARSE's text for its ALLOC_FAILED
    """,
    re.VERBOSE,
)
# Messages of a library without memory for its handle or plan, but also of one on a device that a kernel has broken.
_NO_HANDLE = re.compile(
    r"(NOT_INITIALIZED|INTERNAL_ERROR|initialization error),? when calling `(cublas|cublasLt|cusolverDn|cusparse)Create"
    r"|cuDNN error: CUDNN_STATUS_(NOT_INITIALIZED|INTERNAL_ERROR)\b"
    r"|cuFFT error: CUFFT_INTERNAL_ERROR"
)
_HANDLE_BYTES = 512 << 20  # more than any handle needs
_CUDA_MEMORY_ALLOCATION = 2  # ``cudaErrorMemoryAllocation``, the ``error_code`` of a ``torch.AcceleratorError``
_TAIL_LINES = 30


def status_of(error: BaseException) -> Status:
    """``oom`` and ``diverged`` are results; every other exception is an ``error``."""
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    return Status.ERROR if memory_error(error) is None else Status.OOM


def memory_error(error: BaseException) -> BaseException | None:
    """The out-of-memory exception (GPU or host): ``error`` or an exception that led to it; None if there is none."""
    return next((each for each in _chain(error) if _lacks_memory(each)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error``, its causes and contexts, and the members of groups, without those suppressed by ``from None``."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        before = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        waiting += [*([before] if before else []), *(each.exceptions if isinstance(each, BaseExceptionGroup) else ())]


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError) or is_out_of_host_memory(error):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if getattr(error, "error_code", None) == _CUDA_MEMORY_ALLOCATION or _OUT_OF_MEMORY.search(str(error)):
        return True
    return bool(_NO_HANDLE.search(str(error))) and not _device_has_room()


def _device_has_room() -> bool:
    """Whether the missing handle has another reason: the device is broken, or has memory for any handle."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
        free, _ = torch.cuda.mem_get_info()  # PyTorch's allocator still holds what it held at the failure
    except RuntimeError as error:
        return not (isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)))
    return free >= _HANDLE_BYTES


def failure_of(error: BaseException, *, phase: str, step: int | None) -> Failure:
    """The failure of a record; with the end of the traceback if the fault is the program's, not the user's."""
    reason = error if isinstance(error, DivergedError) else memory_error(error) or error
    internal = status_of(error) is Status.ERROR and not isinstance(error, BenchError)
    lines = "".join(traceback.format_exception(error)).splitlines() if internal else []
    host = not isinstance(reason, torch.OutOfMemoryError) and is_out_of_host_memory(reason)
    return Failure(
        type=HOST_OUT_OF_MEMORY if host else type(reason).__name__,
        message=(str(reason) or repr(reason)) + (address_space_limit() if host else ""),
        phase=phase,
        step=step,
        log_tail="\n".join(lines[-_TAIL_LINES:]),
    )

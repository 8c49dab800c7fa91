"""From exceptions to statuses, with the messages torch really writes."""

from __future__ import annotations

import errno

import pytest
import torch
from triton.runtime.errors import OutOfResources  # type: ignore[import-untyped]

from bench.errors import AuditError, BenchError, DivergedError
from bench.records.record import Status
from bench.training.failure import failure_of, status_of


def type_of(error: BaseException) -> str:
    return failure_of(error, phase="load", step=None).type


def test_the_host_allocator_of_torch_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert (status_of(caught.value), type_of(caught.value)) == (Status.OOM, "HostOutOfMemory")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("Failed to import transformers.models.bert because of: libx.so: failed to map segment from shared "
                     "object"),
        RuntimeError("std::bad_alloc"),
    ],
)  # fmt: skip
def test_want_of_host_memory_has_one_name(error: Exception) -> None:
    assert (status_of(error), type_of(error)) == (Status.OOM, "HostOutOfMemory")


def test_want_of_gpu_memory_keeps_its_name() -> None:
    assert type_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")) == "OutOfMemoryError"


ACCELERATOR = torch.AcceleratorError(
    "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda/ for more "
    "information.\nCUDA kernel errors might be asynchronously reported at some other API call"
)
CODED = torch.AcceleratorError("CUDA error: the text of another language")
CODED.error_code = 2  # type: ignore[attr-defined]
WRITTEN_FOR_WANT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ACCELERATOR,
    CODED,
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmul( ltHandle, ...)`"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`. If you keep"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`. If you"),
    RuntimeError("CUDA error: insufficient resources when calling `cusparseSpMM_bufferSize( cusparse_handle, ...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError(
        "CUDA ran out of memory outside PyTorch's allocator. If this workload uses many dynamic shapes, cuDNN"
    ),
    RuntimeError("unable to mmap 4096 bytes from file </torch_1>: Cannot allocate memory (12)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
OF_OTHER_FAULTS = [
    ImportError("/tmp/x.so: failed to map segment from shared object: Operation not permitted"),  # a noexec mount
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle, stream)`"),
    RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    RuntimeError("Sizes of tensors must match; set low_cpu_mem_usage to avoid running out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED_SHARED_MEMORY_INSUFFICIENT"),
    OutOfResources(147456, 101376, "shared memory"),
    ImportError("/lib/libgomp.so.1: cannot allocate memory in static TLS block"),
    ValueError("can't allocate memory"),
    OSError(errno.ENOSPC, "No space left on device"),
    AuditError("part vit (F) must not train x"),
]


@pytest.mark.parametrize("error", WRITTEN_FOR_WANT_OF_MEMORY, ids=repr)
def test_want_of_memory_in_all_its_disguises_is_a_result(error: Exception) -> None:
    assert status_of(error) is Status.OOM
    assert failure_of(error, phase="train", step=0).log_tail == ""


@pytest.mark.parametrize("error", OF_OTHER_FAULTS, ids=repr)
def test_a_message_that_mentions_memory_is_no_want_of_it(error: Exception) -> None:
    assert status_of(error) is Status.ERROR


def test_divergence_is_divergence_whatever_came_before_it() -> None:
    error = DivergedError("the loss became nan in step 3")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert status_of(error) is Status.DIVERGED


def raised(error: Exception, cause: Exception, how: str) -> Exception:
    """``error``, raised in one of the ways in which it comes after ``cause``."""
    error.__context__ = cause
    error.__cause__ = cause if how == "from" else None  # which sets __suppress_context__, as ``raise ... from`` does
    error.__suppress_context__ = how != "while handling"
    return error


@pytest.mark.parametrize("how", ["from", "while handling"])
def test_what_want_of_memory_led_to_is_want_of_memory(how: str) -> None:
    lacking = RuntimeError("Triton Error [CUDA]: out of memory")
    error = raised(BenchError("method x cannot be put on part vit"), raised(ValueError("y"), lacking, how), how)
    assert status_of(error) is Status.OOM
    assert failure_of(error, phase="train", step=0).message == "Triton Error [CUDA]: out of memory"


def test_a_want_of_memory_that_was_survived_is_none() -> None:
    assert status_of(raised(KeyError("z"), torch.OutOfMemoryError("CUDA out of memory."), "from None")) is Status.ERROR


def test_several_errors_at_once_may_hold_one() -> None:
    assert status_of(ExceptionGroup("two", [ValueError("x"), MemoryError()])) is Status.OOM


@pytest.mark.parametrize(
    ("free", "fault", "status"),
    [
        (1 << 20, None, Status.OOM),
        (40 << 30, None, Status.ERROR),
        (0, torch.AcceleratorError("CUDA error: device-side assert triggered"), Status.ERROR),
        (0, torch.AcceleratorError("CUDA error: out of memory"), Status.OOM),
    ],
    ids=["no memory is left", "memory is left", "a kernel broke the device", "no memory even to ask"],
)
def test_a_handle_that_cannot_be_made_is_want_of_memory_if_the_device_agrees(
    free: int, fault: Exception | None, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synchronize() -> None:
        if fault is not None:
            raise fault

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 80 << 30))
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    assert status_of(error) is status


def test_our_faults_bring_their_traceback_and_the_users_do_not() -> None:
    with pytest.raises(KeyError) as caught:
        dict[str, int]()["question_ids"]
    fault = failure_of(caught.value, phase="train", step=3)
    assert (fault.type, fault.phase, fault.step) == ("KeyError", "train", 3)
    assert "test_failure.py" in fault.log_tail
    assert failure_of(AuditError("part vit"), phase="load", step=None).log_tail == ""
    assert failure_of(MemoryError(), phase="eval", step=0).message == "MemoryError()"

"""From exceptions to statuses, with the messages torch really writes."""

from __future__ import annotations

import errno

import pytest
import torch

from bench.errors import AuditError, DivergedError
from bench.record import Status
from bench.worker.failure import failure_of, status_of


def test_the_host_allocator_of_torch_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert status_of(caught.value) is Status.OOM
    assert failure_of(caught.value, phase="load", step=None).type == "HostOutOfMemory"


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
    assert status_of(error) is Status.OOM
    assert failure_of(error, phase="load", step=None).type == "HostOutOfMemory"


def test_a_mount_that_forbids_libraries_is_no_want_of_memory() -> None:
    error = ImportError("/tmp/x.so: failed to map segment from shared object: Operation not permitted")
    assert status_of(error) is Status.ERROR


def test_want_of_gpu_memory_keeps_its_name() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert failure_of(error, phase="train", step=1).type == "OutOfMemoryError"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), Status.OOM),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Status.OOM),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Status.OOM),
        (RuntimeError("CUDA error: out of memory"), Status.OOM),
        (RuntimeError("CUDA error: device-side assert triggered"), Status.ERROR),
        (ValueError("can't allocate memory"), Status.ERROR),
        (DivergedError("the loss became nan in step 3"), Status.DIVERGED),
        (AuditError("part vit is frozen (F), yet trains x"), Status.ERROR),
    ],
)
def test_statuses(error: Exception, status: Status) -> None:
    assert status_of(error) is status


def test_our_faults_bring_their_traceback_and_the_users_do_not() -> None:
    with pytest.raises(KeyError) as caught:
        dict[str, int]()["question_ids"]
    fault = failure_of(caught.value, phase="train", step=3)
    assert (fault.type, fault.phase, fault.step) == ("KeyError", "train", 3)
    assert "test_failure.py" in fault.log_tail
    assert failure_of(AuditError("part vit"), phase="load", step=None).log_tail == ""
    assert failure_of(MemoryError(), phase="eval", step=0).message == "MemoryError()"

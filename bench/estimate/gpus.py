"""What an estimate must know about the GPU, by generation: memory that PyTorch's allocator does not see, and cuBLAS's.

No number here was fitted to a published table; each comes from where ``source`` says.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
_AMPERE_CONTEXT = 647_500_000
_AMPERE_SOURCE = (
    "after a forward pass of BERT, device memory in use (the driver's share included) minus what PyTorch reserved: "
    "1238.9 - 591.4 MB of 1e6 bytes, by neighbouring entries on an A10G with PyTorch 2.5 or later (Hugging Face data "
    "set optimum-benchmark/cuda, cuda_pytorch_bert)"
)
_NONE_PUBLISHED = "no figure with lazily loaded kernels (CUDA 11.7 and later) was found; Ampere's is taken"
_SMALL_WORKSPACE = (2 * 4096 + 8 * 16) * 1024
_LARGE_WORKSPACE = 32 * MIB
"""PyTorch's default cuBLAS workspaces: ``:4096:2:16:8`` KiB, and that of newer GPUs."""
_LT_WORKSPACE = MIB
"""cuBLASLt's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A generation of NVIDIA GPUs."""

    compute_major: int
    context_bytes: int
    """CUDA context and loaded kernels: what a process takes beside what PyTorch's allocator reserves."""
    source: str
    """Of ``context_bytes``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cublas:
    """What a version of PyTorch gives cuBLAS, and cuBLASLt, to work with."""

    workspace_bytes: int
    lt_workspace_bytes: int
    """Of cuBLASLt, which adds a bias to a matrix product; 0 where it works in cuBLAS's."""
    lt_also_takes_workspace: bool
    """Whether a call of cuBLASLt makes cuBLAS's workspace as well."""
    kept: bool
    """For good, by each thread that multiplies: the program's and, in training, autograd's. Else for each call."""


def _gpu(compute_major: int, source: str = _NONE_PUBLISHED) -> Gpu:
    return Gpu(
        compute_major=compute_major,
        context_bytes=_AMPERE_CONTEXT,
        source=source,
    )


GPUS: dict[str, Gpu] = {
    "volta": _gpu(7),
    "turing": _gpu(7),
    "ampere": _gpu(8, _AMPERE_SOURCE),
    "ada": _gpu(8),
    "hopper": _gpu(9),
    "blackwell": _gpu(10),
}
DEFAULT = "ampere"
"""Assumed where no NVIDIA GPU is visible and none is named."""
_SINCE = {(12, 0): "blackwell", (10, 0): "blackwell", (9, 0): "hopper", (8, 9): "ada", (8, 0): "ampere"}
_SINCE |= {(7, 5): "turing", (7, 0): "volta"}
"""Compute capability from which on a GPU is of that generation, newest first."""


def generation(capability: tuple[int, int]) -> str | None:
    """The name in ``GPUS`` of GPUs of this compute capability; null for those older than all of them."""
    return next((name for since, name in _SINCE.items() if capability >= since), None)


def cublas_of(gpu: Gpu, torch: str, *, cache: str | None = None) -> Cublas:
    """Of PyTorch's version ``torch``; ``cache``: ``TORCH_CUBLAS_WORKSPACE_CACHE`` of the environment.

    Read in the sources, and in the binaries of 2.11.0 and 2.14.1, never measured. Until 2.14, workspaces are kept for
    each handle and stream, and a handle is a thread's own. 2.11 has the larger one on Hopper alone, 2.14 from Hopper
    on; 2.11 makes one of its own for cuBLASLt and cuBLAS's with it, 2.14 lets both work in the same. 2.12 and 2.13 are
    taken to be as 2.11 is, but for Blackwell. From 2.15 on each call allocates and frees its own.
    """
    version = tuple(int(part) for part in torch.split("+")[0].split(".")[:2])
    large = gpu.compute_major >= 9 if version >= (2, 12) else gpu.compute_major == 9
    kept = version < (2, 15) or cache == "1"
    shared = kept and version >= (2, 14)
    return Cublas(
        workspace_bytes=_LARGE_WORKSPACE if large else _SMALL_WORKSPACE,
        lt_workspace_bytes=0 if shared else _LT_WORKSPACE,
        lt_also_takes_workspace=kept,
        kept=kept,
    )

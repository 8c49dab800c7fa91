"""GPU generations: CUDA context and cuBLAS workspaces, the memory that a run on the meta device does not show.

No number here was fitted to a published table; each comes from its ``source``.
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
_SMALL_WORKSPACE = (2 * 4096 + 8 * 16) * 1024  # PyTorch's default for cuBLAS, ":4096:2:16:8" KiB
_LARGE_WORKSPACE = 32 * MIB  # its default on newer GPUs
_LT_WORKSPACE = MIB  # its default for cuBLASLt


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuGeneration:
    """A generation of NVIDIA GPUs."""

    compute_major: int
    context_bytes: int = _AMPERE_CONTEXT
    """CUDA context and loaded kernels: GPU memory of a process outside PyTorch's allocator."""
    source: str = _NONE_PUBLISHED
    """Source of ``context_bytes``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cublas:
    """Workspaces that a version of PyTorch gives to cuBLAS and cuBLASLt."""

    workspace_bytes: int
    lt_workspace_bytes: int
    """Workspace of cuBLASLt, which computes matrix products with a bias; 0 where it shares cuBLAS's."""
    lt_also_takes_workspace: bool
    """Whether a call of cuBLASLt allocates the workspace of cuBLAS, too."""
    kept: bool
    """Whether each thread that multiplies (the program's and, in training, autograd's) keeps its workspace for good;
    else it lasts for one call."""


GPUS: dict[str, GpuGeneration] = {
    "volta": GpuGeneration(compute_major=7),
    "turing": GpuGeneration(compute_major=7),
    "ampere": GpuGeneration(compute_major=8, source=_AMPERE_SOURCE),
    "ada": GpuGeneration(compute_major=8),
    "hopper": GpuGeneration(compute_major=9),
    "blackwell": GpuGeneration(compute_major=10),
}
DEFAULT = "ampere"
"""Generation that is assumed if no NVIDIA GPU is visible and none is named."""
_MIN_CAPABILITY = {  # newest first
    (10, 0): "blackwell",
    (9, 0): "hopper",
    (8, 9): "ada",
    (8, 0): "ampere",
    (7, 5): "turing",
    (7, 0): "volta",
}


def generation(capability: tuple[int, int]) -> str | None:
    """Key in ``GPUS`` for this compute capability; None for older GPUs."""
    return next((name for lowest, name in _MIN_CAPABILITY.items() if capability >= lowest), None)


def cublas_of(gpu: GpuGeneration, torch: str, *, cache: str | None = None) -> Cublas:
    """Workspaces under PyTorch version ``torch``; ``cache``: ``TORCH_CUBLAS_WORKSPACE_CACHE`` of the environment.

    Read in the sources, and in the binaries of 2.11.0 and 2.14.1; never measured. 2.12 and 2.13 are assumed to be as
    2.11, except for Blackwell.
    """
    version = tuple(int(number) for number in torch.split("+")[0].split(".")[:2])
    large = gpu.compute_major >= 9 if version >= (2, 12) else gpu.compute_major == 9  # until 2.11 Hopper alone
    kept = version < (2, 15) or cache == "1"  # until 2.14 a workspace is a handle's, and a handle a thread's
    shared = kept and version >= (2, 14)
    return Cublas(
        workspace_bytes=_LARGE_WORKSPACE if large else _SMALL_WORKSPACE,
        lt_workspace_bytes=0 if shared else _LT_WORKSPACE,
        lt_also_takes_workspace=kept,
        kept=kept,
    )

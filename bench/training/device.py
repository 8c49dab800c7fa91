"""Device of a cell, and settings of torch on it: precision, TF32 and seeds, with their description in a record."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from bench import environment
from bench.errors import BenchError


def choose_device(name: str) -> torch.device:
    """Device for ``auto`` (CUDA if there is any), ``cpu`` or ``cuda``. Raises BenchError if there is no CUDA device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BenchError("run.device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """``bf16`` and ``fp16``: weights of that type; ``*_autocast``: fp32 weights, computed under autocast."""

    device: torch.device
    weights: torch.dtype
    compute: torch.dtype | None
    """Type under autocast; None without autocast."""

    @property
    def scales_loss(self) -> bool:
        """Whether gradients need a loss scaler, because the range of fp16 is too small for them."""
        return self.compute is torch.float16

    def context(self) -> AbstractContextManager[object]:
        """Context of a forward pass."""
        return nullcontext() if self.compute is None else torch.autocast(self.device.type, dtype=self.compute)

    def to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors on the device; floating-point ones (images) in the type of the weights."""
        # On meta always a copy: the source stands for a tensor on the CPU, its copy for the one on the GPU.
        copy = self.device.type == "meta"
        return {
            name: tensor.to(self.device, self.weights if tensor.is_floating_point() else tensor.dtype, copy=copy)
            for name, tensor in tensors.items()
        }


def make_precision(name: str, device: torch.device) -> Precision:
    """``fp32``, ``bf16``, ``fp16``, ``bf16_autocast`` or ``fp16_autocast`` on a device."""
    kind, _, autocast = name.partition("_")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
    if autocast:
        return Precision(device=device, weights=torch.float32, compute=dtype)
    return Precision(device=device, weights=dtype, compute=None)


def forbid_tf32(device: torch.device) -> None:
    """Turn TF32 off. Raises BenchError if the environment forces it on."""
    # PyTorch leaves TF32, with 10 of fp32's 23 bits of mantissa, on for cuDNN's convolutions. The older names of the
    # switches: once they are set by the newer (``fp32_precision``), PyTorch refuses to read the older, as
    # ``torch.backends.cudnn.flags`` does.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    forced = os.environ.get("NVIDIA_TF32_OVERRIDE", "0")
    if device.type == "cuda" and forced != "0":
        raise BenchError(
            f"NVIDIA_TF32_OVERRIDE={forced} makes NVIDIA's libraries compute fp32 in TF32: unset it, or set it to 0"
        )


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed random, numpy and torch on all devices; on a CPU equal cells then give equal bits."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    # Not on CUDA: deterministic algorithms are slower and take more memory, the very costs that are measured.
    torch.use_deterministic_algorithms(device.type == "cpu", warn_only=True)
    # Filling fresh tensors with NaN would find reads of uninitialised memory, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and revision, with what only torch knows; ``device`` is ``cpu`` or the GPU's name."""
    on_gpu, cudnn = device.type == "cuda", cast("Any", torch.backends.cudnn)
    matmul = cast("Any", torch.backends.cuda.matmul)
    # The newer switch can be read however TF32 was set.
    return environment.describe() | {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cuda": torch.version.cuda if on_gpu else None,
        "torch_threads": torch.get_num_threads(),
        "tf32_matmul": matmul.fp32_precision == "tf32" if on_gpu else None,
        "tf32_cudnn": cudnn.conv.fp32_precision == "tf32" if on_gpu else None,
        "cudnn_benchmark": cudnn.benchmark if on_gpu else None,
    }

"""The environment of a record: what ``bench.environment`` knows without torch, and what only torch knows."""

from __future__ import annotations

import os
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Versions and hardware; ``device`` is ``cpu`` or the GPU's name."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cuda": torch.version.cuda if on_gpu else None,
        "torch_threads": torch.get_num_threads(),
        "pytorch_cuda_alloc_conf": os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }

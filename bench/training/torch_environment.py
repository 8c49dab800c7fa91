"""The environment of a record: what ``bench.environment`` knows without torch, and what only torch knows."""

from __future__ import annotations

from typing import Any, cast

import torch

from bench import environment


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and revision; ``device`` is ``cpu`` or the name of the GPU in use."""
    on_gpu, cudnn = device.type == "cuda", cast("Any", torch.backends.cudnn)
    return environment.describe() | {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cuda": torch.version.cuda if on_gpu else None,
        "torch_threads": torch.get_num_threads(),
        "tf32_matmul": _is_tf32(torch.backends.cuda.matmul) if on_gpu else None,
        "tf32_cudnn": _is_tf32(cudnn.conv) if on_gpu else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark if on_gpu else None,
    }


def _is_tf32(kind: Any) -> bool:
    """By the newer switch, which can be read however it was set."""
    return bool(kind.fp32_precision == "tf32")

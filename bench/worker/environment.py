"""The environment of a record: what ``bench.environment`` knows without torch, and what only torch knows."""

from __future__ import annotations

from typing import Any

import torch

from bench import environment


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and revision; ``device`` is ``cpu`` or the name of the GPU in use."""
    on_gpu = device.type == "cuda"
    return environment.describe() | {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "cuda": torch.version.cuda if on_gpu else None,
        "torch_threads": torch.get_num_threads(),
    }

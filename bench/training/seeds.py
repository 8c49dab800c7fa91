"""One seed for every source of randomness."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed random, numpy and torch on all devices.

    On a CPU the deterministic algorithms are switched on, so that equal cells give equal bits. On CUDA they are
    not: they are slower, take more memory and would change the very costs that are to be measured.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    on_cpu = device.type == "cpu"
    torch.use_deterministic_algorithms(on_cpu, warn_only=True)
    # Filling every fresh tensor with NaN guards against reading uninitialised memory and costs time for nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

"""Small timm models for the tests of this family."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.models import timm as family
from bench.models.timm.model import TimmModel
from bench.plugins.contracts import TaskFacts

TINY_VIT = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
SMALL_RESNET: dict[str, Any] = {
    "architecture": "resnet18",
    "arguments": {"channels": [8, 8, 8, 8]},
    "image": {"size": 32},
}


def task(labels: tuple[str, ...] = ("a", "b", "c"), **changed: Any) -> TaskFacts:
    facts: dict[str, Any] = {"name": "image_classification", "inputs": ("image",), "output": "label", "labels": labels}
    return TaskFacts(**facts | changed)


def settings(architecture: str = "vit_tiny_patch16_224", **fields: Any) -> family.Settings:
    if architecture == "vit_tiny_patch16_224" and "arguments" not in fields:
        fields = {"arguments": TINY_VIT, "image": {"size": 32}} | fields
    return family.Settings.model_validate({"family": "timm", "architecture": architecture, **fields})


def built(
    architecture: str = "vit_tiny_patch16_224", device: str = "cpu", facts: TaskFacts | None = None, **fields: Any
) -> TimmModel:
    torch.manual_seed(0)
    return family.build(settings(architecture, **fields), texts=[], device=device, task=facts or task())


def picture(width: int = 50, height: int = 40) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))

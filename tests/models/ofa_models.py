"""Small OFA models and a batch of questions of different lengths, for the tests of this family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import registry
from bench.models import ofa
from bench.models.ofa.model import OfaModel
from bench.plugins.settings import MethodSettings
from bench.training.adapt import adapt

QUESTIONS = ["what is it?", "is there a red circle in the image?", "color", "Is it a lung - or not?"]
ANSWERS = ["red", "yes", "left lung", "a b c d"]
METHODS = ("lora", "ia3", "prefix", "ptuning_v2")
MICRO = {
    "family": "ofa",
    "preset": "micro",
    "network": {"hidden_size": 32, "resnet_channels": [8, 8, 8]},
    "image_size": 48,
    "constrain": "none",
}


def micro(seed: int = 0, **changes: Any) -> OfaModel:
    """Random weights large enough that different inputs get different answers."""
    torch.manual_seed(seed)
    settings = ofa.Settings.model_validate({**MICRO, **changes})
    built = ofa.build(settings, texts=[*QUESTIONS, *ANSWERS], device="cpu")
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.25)
    built.module.eval()
    return built


def images() -> Sequence[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in QUESTIONS]


def batch_of(model: OfaModel) -> dict[str, torch.Tensor]:
    return model.collate(images(), QUESTIONS, ANSWERS)


def adapted(model: OfaModel, part: str, method: str, **fields: Any) -> list[torch.nn.Parameter]:
    """Put the method on the part, freeze the rest; returns what is trained."""
    methods: dict[str, MethodSettings] = {method: registry.load("methods", method).Settings(type=method, **fields)}
    adapt(model, ofa.PARTS, {name: method if name == part else "F" for name in ofa.PARTS}, methods)
    model.module.eval()
    return [p for p in model.module.parameters() if p.requires_grad]


def disturb(parameters: Sequence[torch.nn.Parameter], amount: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=amount)

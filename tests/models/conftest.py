"""A tiny random MISS and a batch of questions of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from bench.models import miss
from bench.models.miss.model import MissModel

QUESTIONS = ["what is it ?", "is there a red circle in the image ?", "color ?", "is it a lung or not ?"]
ANSWERS = ["red", "yes", "left lung", "a b c d"]
TINY = {
    "family": "miss",
    "preset": "tiny",
    "vision": {"hidden_size": 32, "num_hidden_layers": 2},
    "text": {"hidden_size": 32},
    "image": {"size": 32},
}


@pytest.fixture
def settings() -> miss.Settings:
    return miss.Settings.model_validate(TINY)


@pytest.fixture
def model(settings: miss.Settings) -> MissModel:
    """Random weights large enough that different inputs get different answers; no dropout."""
    return make(settings)


@pytest.fixture(scope="session")
def images() -> Sequence[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in QUESTIONS]


@pytest.fixture
def batch(model: MissModel, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    return model.collate(images, QUESTIONS, ANSWERS)


def make(settings: miss.Settings, seed: int = 0) -> MissModel:
    torch.manual_seed(seed)
    built = miss.build(settings, texts=[*QUESTIONS, *ANSWERS], device="cpu")
    with torch.no_grad():
        for parameter in built.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    built.module.eval()
    return built

"""Which class does which task, and how any of them is built and saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.models.common.parts import refuse_adapters
from bench.models.hf import architectures, builder, checks
from bench.models.hf.model import HfModel
from bench.models.hf.text import Continuation, Rewriting, TextLabels
from bench.models.hf.vision import ImageLabels
from bench.models.hf.vision_language import BlipAnswers, Seeing
from bench.plugins.contracts import BenchModel, TaskFacts

if TYPE_CHECKING:
    from bench.models.hf import Settings

_CLASSES: dict[str, type[HfModel]] = {
    architectures.LABELS: TextLabels,
    architectures.IMAGES: ImageLabels,
    architectures.CAUSAL: Continuation,
    architectures.SEQ2SEQ: Rewriting,
    architectures.VISION_TEXT: Seeing,
    architectures.VQA: BlipAnswers,
}

_CHECKS: dict[str, Callable[[Any], None]] = {
    architectures.LABELS: checks.check_labels,
    architectures.IMAGES: checks.check_images,
}
"""Of what a kind takes for granted; all others write."""


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> HfModel:
    """See ``bench.models.hf.build``."""
    built = builder.build(settings, texts, task, meta=device == "meta")
    if device not in ("meta", "cpu"):
        built.module.to(device)
    model = _CLASSES[built.kind](built)
    if device != "meta":
        _CHECKS.get(built.kind, checks.check_writer)(model)
    return model


def save(model: BenchModel, folder: Path) -> None:
    """See ``bench.models.hf.save``. Raises WeightsError for a model with adapters, which has no plain layout."""
    assert isinstance(model, HfModel)
    refuse_adapters(model.module)
    model.save(folder)

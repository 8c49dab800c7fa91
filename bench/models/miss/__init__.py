"""MISS (Chen et al. 2024), the generative Med-VQA model of the MILE paper: BLIP-VQA with a ViT (``vit``), a joint
text-multimodal encoder (``jtm``) and an answer decoder (``dec``), built on ``transformers.BlipForQuestionAnswering``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.models.common import require_vqa
from bench.models.miss.settings import PARTS, SEARCH, BundledWeights, ImageSettings, Settings
from bench.models.miss.weights import digest
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts

if TYPE_CHECKING:
    from bench.models.miss.model import MissModel

__all__ = ["PARTS", "SEARCH", "BundledWeights", "ImageSettings", "Settings", "build", "parts", "save", "weights_digest"]


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """``PARTS``. Raises SpecError for a task other than VQA."""
    require_vqa(settings.family, task)
    return PARTS


def weights_digest(settings: Settings) -> str | None:
    """SHA-256 over the weight files; null for random initialisation. Raises WeightsError if they are missing."""
    return digest(settings.weights)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts | None = None) -> MissModel:  # noqa: ARG001
    """Build with weights loaded; ``device="meta"`` reads no weights. Raises WeightsError."""
    from bench.models.miss import model

    return model.build(settings, texts=texts, device=device)


def save(model: BenchModel, folder: Path) -> None:
    """Write ``model.safetensors`` (fp32), ``config.json`` and ``vocab.txt``: the layout of ``weights.kind: folder``."""
    from bench.models.miss.model import save as save_miss

    save_miss(model, folder)

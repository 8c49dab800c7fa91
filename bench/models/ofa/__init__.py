"""OFA (Wang et al. 2022) as in BiomedGPT (Zhang et al. 2023) and the MILE paper's Table 5: a ResNet and a transformer
encoder read image and question (``encoder``), a decoder writes the answer (``decoder``).

Both inputs and the output share the token embedding. It belongs to neither part and stays frozen, as in BiomedGPT's
fine-tuning scripts, unless ``embedding`` gives it to a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.models.common import require_vqa
from bench.models.ofa.settings import PARTS, NetworkSettings, Settings
from bench.models.ofa.weights import digest
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts

if TYPE_CHECKING:
    from bench.models.ofa.model import OfaModel

__all__ = ["PARTS", "NetworkSettings", "Settings", "build", "parts", "save", "weights_digest"]


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """``PARTS``. Raises SpecError for a task other than VQA."""
    require_vqa(settings.family, task)
    return PARTS


def weights_digest(settings: Settings) -> str | None:
    """SHA-256 over the weight files; null for random initialisation. Raises WeightsError if they are missing."""
    return digest(settings.weights)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts | None = None) -> OfaModel:  # noqa: ARG001
    """Build with weights loaded; ``device="meta"`` reads no weights. Raises WeightsError."""
    from bench.models.ofa import model

    return model.build(settings, texts=texts, device=device)


def save(model: BenchModel, folder: Path) -> None:
    """Write ``model.safetensors`` (fp32), ``config.json`` and the tokenizer: the layout of ``weights.kind: folder``."""
    from bench.models.ofa.model import save as save_ofa

    save_ofa(model, folder)

"""Any model of timm (Wightman 2019) for image classification: layers before the blocks (``stem``), the ``blocks``, and
the classifier (``head``); or parts that the spec declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import SpecError
from bench.models.timm.settings import PARTS, Settings, digest
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts

if TYPE_CHECKING:
    from bench.models.timm.model import TimmModel

__all__ = ["PARTS", "Settings", "build", "parts", "save", "weights_digest"]


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """The three parts, or the spec's. Raises SpecError for a task other than image classification."""
    if task.output != "label" or task.inputs != ("image",):
        asks = f"{' and '.join(task.inputs)} in, {task.output} out"
        raise SpecError(
            f"family {settings.family!r} labels images, and task {task.name!r} is another: {asks}; "
            "set task: image_classification, or another model.family"
        )
    if settings.parts is None:
        return PARTS
    return {name: PartFacts(name=name, task_type=None, targets={}) for name in settings.parts}


def weights_digest(settings: Settings) -> str | None:
    """SHA-256 over the weight files; null for random initialisation. Raises WeightsError if they are missing."""
    return digest(settings.weights)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> TimmModel:  # noqa: ARG001
    """Build for the task's labels, with weights loaded; ``device="meta"`` reads no weights.

    Raises WeightsError, and SpecError for an architecture, an argument or a part that timm lacks.
    """
    from bench.models.timm import model

    return model.build(settings, device=device, task=task)


def save(model: BenchModel, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` as timm does: the layout of ``weights.kind: folder``."""
    from bench.models.timm.model import save as save_timm

    save_timm(model, folder)

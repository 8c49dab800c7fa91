"""Any architecture of the ``transformers`` library, with the auto-class of the task.

Weights come from a Hub id or a folder; a configuration alone, in a file or in the spec, gives random weights. Models
with code of their own (``trust_remote_code``) are not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.models.hf import architectures, files
from bench.models.hf.settings import PARTS, ImageSettings, Settings
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts

if TYPE_CHECKING:
    from bench.models.hf.model import HfModel

__all__ = ["PARTS", "ImageSettings", "Settings", "build", "parts", "save", "weights_digest"]


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """The declared parts, or the default ones. Raises SpecError for a task that the architecture cannot do."""
    config = files.model_config(settings, download=False)
    kinds = architectures.kinds(task)
    if config is None:
        kind = kinds[-1]  # without a configuration it is unknown whether the model encodes
    else:
        kind = architectures.kind(config["model_type"], task, config.get("is_encoder_decoder"))
    task_type = architectures.task_type(kind, config["model_type"] if config else "")
    known: dict[str, Any] = {"architecture": "", "model_task_type": None}
    if config is not None:  # in a model of several, each part has its own architecture
        is_single = not any(isinstance(field, dict) and name.endswith("_config") for name, field in config.items())
        known = {"architecture": config["model_type"] if is_single else "", "model_task_type": task_type}
    if settings.parts is None:
        return {name: replace(facts, **known) for name, facts in PARTS.items()}
    return {
        name: PartFacts(name=name, task_type=task_type if patterns in ("", [""]) else None, targets={}, **known)
        for name, patterns in settings.parts.items()
    }


def weights_digest(settings: Settings) -> str | None:
    """SHA-256 over weights (unless random), configuration, tokenizer and processor; null for a configuration in the
    spec. Raises WeightsError if they are missing."""
    return files.digest(settings)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> HfModel:
    """Build with weights loaded; ``device="meta"`` reads only the configuration. Raises SpecError, WeightsError."""
    from bench.models.hf import builder

    return builder.build(settings, texts=texts, device=device, task=task)


def save(model: BenchModel, folder: Path) -> None:
    """Write weights, configuration and tokenizer or processor, as ``path`` reads them.

    Raises WeightsError for a model with adapters."""
    from bench.models.common.parts import refuse_adapters
    from bench.models.hf.model import HfModel

    assert isinstance(model, HfModel)
    refuse_adapters(model.module)
    model.save(folder)

"""Any architecture of the ``transformers`` library, with the auto-class of the task.

Weights come from a Hub id or a folder; a configuration alone, a file or written into the spec, gives random ones. A
model that brings code of its own (``trust_remote_code``) is not supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts
from bench.plugins.settings import LocalPath, ModelSettings
from bench.plugins.settings import Settings as Base

if TYPE_CHECKING:
    from bench.models.hf.model import HfModel

PARTS = {
    name: PartFacts(name=name, task_type=None, targets={}, optional=True)
    for name in ("embeddings", "encoder", "connector", "decoder", "head")
}
"""Disjoint, and together the whole model. ``embeddings``: of tokens, positions and patches; ``encoder`` and
``decoder``: blocks with the normalisation behind them (a model that only decodes has a ``decoder``; one that also sees
has its vision tower as ``encoder`` and its text model's blocks as ``decoder``); ``connector``: what lies between vision
tower and text model, such as projections, resamplers, a Q-Former with its queries; ``head``: what is outside the base
model, and poolers. A model may lack some: a tied output layer is in ``embeddings``, a projection that the library
builds into a vision tower in ``encoder``. Targets are found in the built model."""


class ImageSettings(Base):
    """What differs from the image processor of the weights; null: as there, or without one 224 pixels (the size in the
    configuration, if it has any), scaled to -1..1."""

    size: int | None = Field(default=None, ge=1)
    """Edge, pixels."""
    mean: tuple[float, float, float] | None = None
    """Subtracted per channel of an image of 0..1."""
    std: tuple[float, float, float] | None = None


class Settings(ModelSettings):
    """A transformers model: exactly one of ``id``, ``path`` and ``config``."""

    family: Literal["hf"]
    id: str | None = None
    """Hugging Face Hub repository; the local cache works offline."""
    revision: str | None = None
    """Branch, tag or commit of ``id``; null: the default branch."""
    path: LocalPath | None = None
    """Folder as ``save_pretrained`` writes it: ``config.json``, weights, tokenizer or processor."""
    config: dict[str, Any] | None = Field(default=None, json_schema_extra={"type": ["object", "string", "null"]})
    """Fields of a configuration, ``model_type`` among them, or the path of a ``config.json``, whose content is taken
    as if it stood here: random weights."""
    random_weights: bool = False
    """Take only the shapes, and the tokenizer, of ``id`` or ``path``; weights need not be there."""
    tokenizer: str | None = None
    """Id or folder of a tokenizer or processor; null: that of the weights. Random weights without one read a data set's
    own words."""
    image: ImageSettings = ImageSettings()
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None
    """Implementation; null: the library's choice."""
    question_max_tokens: int | None = Field(default=None, ge=1)
    """Longer texts and questions are cut, before ``prompt`` is put around them; null: 128, or what the model's
    positions leave."""
    answer_max_tokens: int = Field(default=32, ge=1)
    """Longer training answers are cut, the end of the text included."""
    prompt: str | None = None
    """What a model that writes is given, with ``{question}`` in it. Null: the question, for a model that goes on
    writing behind it with a new line at its end, for one with a chat template as that puts it."""
    parts: dict[str, str | list[str]] | None = None
    """Part -> module path or paths, each step with wildcards (``model.layers.[0-5]``); ``""`` is the whole model, the
    one part that takes virtual tokens. Null: ``embeddings``, ``encoder``, ``connector``, ``decoder``, ``head``."""

    @field_validator("config", mode="before")
    @classmethod
    def _content(cls, value: Any) -> Any:
        if not isinstance(value, str | Path):
            return value
        from bench.errors import SpecError
        from bench.models.hf import files

        try:
            return files.read_config(Path(value))
        except SpecError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_source(self) -> Settings:
        given = [name for name in ("id", "path", "config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"set exactly one of id, path and config, not {' and '.join(given) or 'none of them'}")
        if self.revision is not None and self.id is None:
            raise ValueError("revision is of id; remove it")
        if self.config is not None:
            if not isinstance(self.config.get("model_type"), str):
                raise ValueError("config names no model_type, e.g. `model_type: bert`")
            if self.random_weights:
                raise ValueError("config alone always gives random weights; remove random_weights")
        if self.prompt is not None and "{question}" not in self.prompt:
            raise ValueError("prompt has no place for the question: write {question} where it belongs")
        if self.parts is not None and not self.parts:
            raise ValueError("parts is empty: name a part, or remove it")
        return self

    def describe(self) -> str:
        """``hf bert-base-uncased at main``."""
        if self.config is not None:
            return f"{self.family} {self.config['model_type']}, random weights"
        name = (
            self.path.name if self.path is not None else f"{self.id} at {self.revision}" if self.revision else self.id
        )
        return f"{self.family} {name}" + (", random weights" if self.random_weights else "")


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """The declared parts, or the usual ones. Raises SpecError for a task that the architecture cannot do."""
    from bench.models.hf import architectures, files

    config = files.config(settings, download=False)
    kinds = architectures.kinds(task)
    if config is None:
        kind = kinds[-1]  # whether it encodes is not known before its configuration is here
    else:
        kind = architectures.kind(config["model_type"], task, config.get("is_encoder_decoder"))
    task_type = architectures.task_type(kind, config["model_type"] if config else "")
    known: dict[str, Any] = {"architecture": "", "model_task_type": None}
    if config is not None:  # of a model of several, each part has its own
        one = not any(isinstance(field, dict) and name.endswith("_config") for name, field in config.items())
        known = {"architecture": config["model_type"] if one else "", "model_task_type": task_type}
    if settings.parts is None:
        return {name: replace(facts, **known) for name, facts in PARTS.items()}
    return {
        name: PartFacts(name=name, task_type=task_type if patterns in ("", [""]) else None, targets={}, **known)
        for name, patterns in settings.parts.items()
    }


def weights_digest(settings: Settings) -> str | None:
    """SHA-256 over weights, configuration, tokenizer and processor, of random weights over the others; null for a
    configuration in the spec alone. Raises WeightsError without them."""
    from bench.models.hf import files

    return files.digest(settings)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> HfModel:
    """Build with weights loaded; ``device="meta"`` reads the configuration alone. Raises SpecError, WeightsError."""
    from bench.models.hf import tasks

    return tasks.build(settings, texts=texts, device=device, task=task)


def save(model: BenchModel, folder: Path) -> None:
    """Write weights, configuration and tokenizer or processor: the layout that ``path`` reads."""
    from bench.models.hf import tasks

    tasks.save(model, folder)

"""``model`` of a spec for the family ``hf``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.errors import SpecError
from bench.models.common.files import refuse_quantised_config
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import LocalPath, ModelSettings
from bench.plugins.settings import Settings as Base

PARTS = {
    name: PartFacts(name=name, task_type=None, targets={}, optional=True)
    for name in ("embeddings", "encoder", "connector", "decoder", "head")
}
"""Default parts, disjoint, together the whole model; a model may lack some. The built model has the targets.

``embeddings``: of tokens, positions and patches, with a tied output layer. ``encoder`` and ``decoder``: blocks with the
normalisation behind them; a decoder-only model has a ``decoder``; in a vision-language model, ``encoder`` is the vision
tower, with the projections that the library builds into it, and ``decoder`` the text model's blocks. ``connector``:
layers between vision tower and text model, such as projections, resamplers, a Q-Former with its queries. ``head``:
layers outside the base model, and poolers."""


class ImageSettings(Base):
    """Differences from the image processor of the weights; null: as there. Without a processor: the configuration's
    size, else 224 pixels, scaled to -1..1."""

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
    """Fields of a configuration, ``model_type`` among them, or path of a ``config.json`` with them: random weights."""
    random_weights: bool = False
    """Take only the shapes, and the tokenizer, of ``id`` or ``path``; weights need not be there."""
    tokenizer: str | None = None
    """Id or folder of a tokenizer or processor; null: that of the weights, or for random weights a token for each word
    of the data set."""
    image: ImageSettings = ImageSettings()
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None
    """Implementation; null: the library's choice."""
    question_max_tokens: int | None = Field(default=None, ge=1)
    """Longer texts and questions are cut, before ``prompt`` is put around them; null: 128, or what the model's
    positions leave."""
    answer_max_tokens: int = Field(default=32, ge=1)
    """Longer training answers are cut, the end of the text included."""
    prompt: str | None = None
    """Prompt of a model that writes, with ``{question}`` in it. Null: the question, with a new line behind it for a
    causal model, or as the chat template of the tokenizer formats it."""
    parts: dict[str, str | list[str]] | None = None
    """Part -> module path or paths, each step with wildcards (``model.layers.[0-5]``); ``""`` is the whole model, the
    one part that takes virtual tokens. Null: ``embeddings``, ``encoder``, ``connector``, ``decoder``, ``head``."""

    @field_validator("config", mode="before")
    @classmethod
    def _read_config_file(cls, value: Any) -> Any:
        if not isinstance(value, str | Path):
            return value
        try:
            return read_config(Path(value))
        except SpecError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Settings:
        given = [name for name in ("id", "path", "config") if getattr(self, name) is not None]
        named = self.config is None or isinstance(self.config.get("model_type"), str)
        for is_wrong, message in (
            (len(given) != 1, f"set exactly one of id, path and config, not {' and '.join(given) or 'none of them'}"),
            (self.revision is not None and self.id is None, "revision is of id; remove it"),
            (not named, "config names no model_type, e.g. `model_type: bert`"),
            (
                self.config is not None and self.random_weights,
                "config alone always gives random weights; remove random_weights",
            ),
            (
                self.prompt is not None and "{question}" not in self.prompt,
                "prompt has no place for the question: write {question} where it belongs",
            ),
            (self.parts == {}, "parts is empty: name a part, or remove it"),
        ):
            if is_wrong:
                raise ValueError(message)
        return self

    @property
    def is_untrained(self) -> bool:
        """Whether all weights are random."""
        return self.config is not None or self.random_weights

    def describe(self) -> str:
        """``hf bert-base-uncased at main``."""
        name = self.path.name if self.path is not None else self.id
        if self.config is not None:
            name = self.config["model_type"]
        at = f" at {self.revision}" if self.revision else ""
        return f"{self.family} {name}{at}" + (", random weights" if self.is_untrained else "")


def read_config(path: Path) -> dict[str, Any]:
    """Content of a ``config.json``. Raises SpecError for another file, and for quantised weights."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}; give a config.json, or the folder that has it as `path`") from None
    except ValueError as error:
        raise SpecError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise SpecError(f"{path} names no model_type: it is not the config.json of a transformers model")
    refuse_quantised_config(content, path, SpecError)
    return content

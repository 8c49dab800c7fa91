"""Settings of timm models, and the files that their weights name. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.errors import WeightsError
from bench.models.common import files as _files
from bench.models.common import settings as common
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import ModelSettings
from bench.plugins.settings import Settings as Base

PARTS = {name: PartFacts(name=name, task_type=None, targets={}) for name in ("stem", "blocks", "head")}
"""Groups of layers as in timm. Layers between blocks and classifier, such as the final norm, belong to ``blocks``, so
that training ``head`` alone is linear probing. The built model has the targets."""

# Arguments of ``timm.create_model`` that a spec cannot set, and why.
_FIXED = {
    "num_classes": "the data set says how many classes there are",
    "in_chans": "images are RGB",
    "pretrained": "set model.weights",
    "checkpoint_path": "set model.weights: {kind: file, path: ...}",
    "pretrained_cfg": "set model.weights and model.image",
    "pretrained_cfg_overlay": "set model.weights and model.image",
    "features_only": "a classifier is built",
    "cache_dir": "the Hub's own cache is used; set HF_HOME",
}


class ImageSettings(Base):
    """Preprocessing in training and evaluation: timm's for evaluation. Null: as timm or the weights have it."""

    size: int | None = Field(default=None, ge=1)
    """Edge, pixels. A model of a fixed input size is built for it."""
    mean: tuple[float, float, float] | None = None
    """Subtracted per channel, of values from 0 to 1."""
    std: tuple[float, float, float] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = None
    crop_pct: float | None = Field(default=None, gt=0, le=1)
    """Share of the resized image that is kept; 1 to keep all."""
    crop_mode: Literal["center", "squash", "border"] | None = None
    """``center``: resize the shorter edge and cut a square; ``squash``: resize both; ``border``: pad the shorter."""


class HubWeights(common.HubWeights):
    """A timm repository on the Hugging Face Hub, e.g. ``timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k``; the local
    cache works offline."""

    kind: Literal["hub"]


class FolderWeights(common.LocalWeights):
    """A folder as such a repository has it, and as ``train.save_model`` writes it: ``model.safetensors`` (or
    ``pytorch_model.bin``) with ``config.json``."""

    kind: Literal["folder"]


class FileWeights(common.LocalWeights):
    """One file of tensors, ``.safetensors`` or ``.pth``, under names that timm knows for this architecture."""

    kind: Literal["file"]


Weights = Annotated[HubWeights | FolderWeights | FileWeights, Field(discriminator="kind")]


class Settings(ModelSettings):
    """Any architecture of timm."""

    family: Literal["timm"]
    architecture: str = Field(min_length=1)
    """As ``timm.create_model`` takes it: ``resnet18``, or with the tag of a published training, whose preprocessing it
    then has: ``vit_base_patch16_224.augreg_in21k``. A tag alone loads no weights."""
    arguments: dict[str, Any] = {}
    """Further arguments of ``timm.create_model``: ``{img_size: 32, depth: 6, drop_path_rate: 0.1}``."""
    image: ImageSettings = ImageSettings()
    attention: Literal["eager", "sdpa"] = "sdpa"
    """``sdpa`` is torch's fused attention; ``eager`` holds the probabilities of all pairs of patches."""
    parts: dict[str, str | list[str]] | None = Field(default=None, min_length=1)
    """Part -> paths of modules or parameters, each step with wildcards: ``{early: [patch_embed, blocks.[0-5]], late:
    'blocks.*', head: head}``; ``""`` is the whole model. What is in no part stays frozen. Null: the three."""
    weights: Weights | None = None
    """Where the weights come from; null: random. A classifier for another number of classes is left random."""

    def describe(self) -> str:
        """``timm resnet18, weights timm/resnet18.a1_in1k``."""
        return common.describe_model(self.family, self.architecture, self.weights)

    @field_validator("arguments")
    @classmethod
    def _settable(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in _FIXED:
                raise ValueError(f"{name} cannot be set here: {_FIXED[name]}")
        return arguments

    @model_validator(mode="after")
    def _agree_on_size(self) -> Settings:
        if self.image.size is not None and self.arguments.get("img_size", self.image.size) != self.image.size:
            raise ValueError(
                f"image.size is {self.image.size}, arguments.img_size {self.arguments['img_size']}: set one of them"
            )
        return self


def digest(weights: Weights | None) -> str | None:
    """SHA-256 (hex) over the file of tensors and the ``config.json`` beside it; null without weights."""
    if weights is None:
        return None
    path = tensors(weights)
    total = hashlib.sha256(f"{path.suffix}\0{_files.sha256(path)}\n".encode())
    if weights.kind != "file":
        total.update(f"{_files.CONFIG}\0{_files.sha256(path.parent / _files.CONFIG)}\n".encode())
    return total.hexdigest()


def tensors(weights: Weights) -> Path:
    """The file of tensors, downloaded if need be. Raises WeightsError if it is missing or quantised."""
    if weights.kind == "file":
        path = weights.path
        if not path.is_file():
            raise WeightsError(f"no weights at {path}: give the file, or weights: null for random ones")
    else:
        folder = weights.path if weights.kind == "folder" else _files.hub_weights(weights, beside=(_files.CONFIG,))
        path = _files.tensors_in(folder)
    _files.refuse_quantised_tensors([path])
    return path


def weights_config(weights: Weights) -> dict[str, Any]:
    """The ``config.json`` beside the tensors (architecture, number of classes, preprocessing), its ``pretrained_cfg``
    merged into it; empty for a single file. Raises WeightsError."""
    if weights.kind == "file":
        return {}
    path = tensors(weights).parent / _files.CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(f"no {_files.CONFIG} in {path.parent}: timm writes it beside the tensors") from None
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error}") from error
    _files.refuse_quantised_config(content, path)
    # The outer fields count: before 1.0.31 timm left the number of classes of the first training among the inner ones.
    return {**content.get("pretrained_cfg", {}), **content}

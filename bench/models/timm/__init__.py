"""Any model of timm (Wightman 2019) for image classification: what comes before its blocks (``stem``), the ``blocks``,
and the classifier alone (``head``); or parts of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.errors import SpecError
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts
from bench.plugins.settings import LocalPath, ModelSettings
from bench.plugins.settings import Settings as Base

if TYPE_CHECKING:
    from bench.models.timm.model import TimmModel

PARTS = {name: PartFacts(name=name, task_type=None, targets={}) for name in ("stem", "blocks", "head")}
"""As timm itself groups a model's layers. What stands between the blocks and the classifier, such as the final norm,
belongs to ``blocks``, so that training ``head`` alone is linear probing. Targets are found in the built model."""

_OURS = {
    "num_classes": "the data set says how many classes there are",
    "in_chans": "images are RGB",
    "pretrained": "set model.weights",
    "checkpoint_path": "set model.weights: {kind: file, path: ...}",
    "pretrained_cfg": "set model.weights and model.image",
    "pretrained_cfg_overlay": "set model.weights and model.image",
    "features_only": "a classifier is built",
    "cache_dir": "the Hub's own cache is used; set HF_HOME",
}
"""Arguments of ``timm.create_model`` that a spec cannot set, and why."""


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


class HubWeights(Base):
    """A timm repository on the Hugging Face Hub, e.g. ``timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k``; the local
    cache works offline."""

    kind: Literal["hub"]
    id: str
    revision: str | None = None
    """Branch, tag or commit; null: the default branch."""

    def describe(self) -> str:
        """For captions."""
        return f"{self.id} at {self.revision}" if self.revision else self.id


class FolderWeights(Base):
    """A folder as such a repository has it, and as ``train.save_model`` writes it: ``model.safetensors`` (or
    ``pytorch_model.bin``) with ``config.json``."""

    kind: Literal["folder"]
    path: LocalPath

    def describe(self) -> str:
        """For captions."""
        return self.path.name


class FileWeights(Base):
    """One file of tensors, ``.safetensors`` or ``.pth``, under names that timm knows for this architecture."""

    kind: Literal["file"]
    path: LocalPath

    def describe(self) -> str:
        """For captions."""
        return self.path.name


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
        weights = f"weights {self.weights.describe()}" if self.weights else "random weights"
        return f"{self.family} {self.architecture}, {weights}"

    @field_validator("arguments")
    @classmethod
    def _not_ours(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in _OURS:
                raise ValueError(f"{name} cannot be set here: {_OURS[name]}")
        return arguments

    @model_validator(mode="after")
    def _one_size(self) -> Settings:
        if self.image.size is not None and self.arguments.get("img_size", self.image.size) != self.image.size:
            raise ValueError(
                f"image.size is {self.image.size}, arguments.img_size {self.arguments['img_size']}: set one of them"
            )
        return self


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """The three parts, or the spec's own. Raises SpecError for a task that is not image classification."""
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
    """SHA-256 over the weight files; null for random initialisation. Raises WeightsError if they are not there."""
    if settings.weights is None:
        return None
    from bench.models.timm import files

    return files.digest(settings.weights)


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> TimmModel:  # noqa: ARG001
    """Build for the task's labels, with weights loaded; ``device="meta"`` reads no weights.

    Raises SpecError for an architecture, an argument or a pattern of a part that timm's model does not have, and
    WeightsError.
    """
    from bench.models.timm import model as _timm_model

    return _timm_model.build(settings, device=device, task=task)


def save(model: BenchModel, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` as timm does: the layout of ``weights.kind: folder``."""
    from bench.models.timm import model as _timm_model

    _timm_model.save(model, folder)

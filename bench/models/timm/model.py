"""A timm model as a worker runs it: parts, preprocessing and logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf

from bench.errors import BenchError, SpecError
from bench.models.common import parts
from bench.models.common.images import ImageReader
from bench.models.timm import builder
from bench.models.timm.settings import Settings
from bench.plugins.contracts import BenchModel, PartFacts, TaskFacts

if TYPE_CHECKING:
    from PIL.Image import Image


class TimmModel(ImageReader, parts.PartitionedModel):
    """A built timm model; see ``bench.plugins.contracts.LabelModel``."""

    has_vocabulary = True

    def __init__(
        self,
        settings: Settings,
        model: Any,
        paths: parts.Paths,
        labels: tuple[str, ...],
        order: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(model, paths)
        self.settings = settings
        self.labels = labels
        self._order = None if order == tuple(range(len(labels))) else order
        """Row of each label in a classifier of the weights; null: the order of the labels."""
        data = {key: model.pretrained_cfg[key] for key in ("input_size", *builder.OF_THE_DATA)}
        self.image_shape = tuple(data["input_size"])
        self._transform: Any = create_transform(**data, is_training=False)
        heads, calls = builder.classifier(model), self._calls()
        called, behind = (calls.modules, calls.classifier) if calls else (None, ())
        facts = {}
        for part in paths:
            targets = parts.default_targets(self.part(part), called=called, outputs=heads, classifier=behind)
            facts[part] = PartFacts(name=part, task_type=None, targets=targets)
        self.part_facts: Mapping[str, PartFacts] = facts

    def collate(
        self,
        images: Sequence[Image],
        questions: Sequence[str],  # noqa: ARG002
        answers: Sequence[str],  # noqa: ARG002
    ) -> dict[str, torch.Tensor]:
        """``pixel_values`` (batch, 3, height, width) fp32 on the CPU."""
        return {"pixel_values": torch.stack([self._transform(image.convert("RGB")) for image in images])}

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shape (batch, labels), in the order of the task's labels."""
        logits: torch.Tensor = self.model(batch["pixel_values"])
        return logits if self._order is None else logits[:, list(self._order)]

    def rows(self) -> list[str]:
        """Label of each row of the classifier."""
        order = self._order or range(len(self.labels))
        return [label for _, label in sorted(zip(order, self.labels, strict=True))]

    def checkpoint_activations(self) -> None:
        """Checkpoint every block. Raises BenchError for a model that cannot."""
        try:
            self.model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise BenchError(
                f"timm's {self.settings.architecture} cannot checkpoint its activations; "
                "set train.gradient_checkpointing to false"
            ) from None

    def facts(self) -> dict[str, int | str]:
        """Edge of the images in pixels (the longer one), kind of attention, number of labels."""
        return {
            "image_size": max(self.image_shape[1:]),
            "attention": self.settings.attention,
            "labels": len(self.labels),
        }

    def _calls(self) -> parts.Calls | None:
        """Modules called for an image; null if the model cannot run on meta. Raises SpecError for a wrong size."""
        try:
            return parts.modules_called(self.model, torch.empty(1, *self.image_shape, device="meta"))
        except (NotImplementedError, RuntimeError, AssertionError) as error:
            if isinstance(error, NotImplementedError) or "device" in str(error):
                return None
            _, height, width = self.image_shape
            raise SpecError(
                f"timm's {self.settings.architecture} does not take images of {height} x {width}: {error}. "
                "Set model.image.size, and what follows from it in model.arguments"
            ) from error


def build(settings: Settings, *, device: str, task: TaskFacts) -> TimmModel:
    """Build the model with its parts. Raises SpecError, WeightsError."""
    model, order = builder.create(settings, task, on_meta=device == "meta")
    if settings.parts is None:
        paths = builder.default_paths(model, settings.architecture)
    else:
        paths = parts.match_parts(model, settings.parts)
    torch.nn.Module.to(model, device)
    return TimmModel(settings, model, paths, task.labels, order)


def save(model: BenchModel, folder: Path) -> None:
    """Write tensors and configuration. Raises WeightsError for a model with adapters."""
    assert isinstance(model, TimmModel)
    parts.refuse_adapters(model.module)
    config, arguments = {"label_names": model.rows()}, model.settings.arguments
    save_for_hf(model.model, str(folder), model_config=config, model_args=arguments, safe_serialization=True)

"""Image classifiers of transformers, and their image processors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from PIL.Image import Image

from bench.errors import WeightsError
from bench.models.common.images import ImageReader
from bench.models.hf.model import Batch, Built, HfModel
from bench.models.hf.settings import ImageSettings

_FILES = ("preprocessor_config.json", "processor_config.json")
# Default edge: that of most ImageNet models.
_SIZE = 224


def set_image_size(config: Any, edge: int) -> None:
    """Set the image size of a configuration that has one."""
    if hasattr(vision := _vision_config(config), "image_size"):
        vision.image_size = edge


def _vision_config(config: Any) -> Any:
    """The configuration with the image size: the vision tower's in CLIP and its kin."""
    return config if hasattr(config, "image_size") else getattr(config, "vision_config", config)


def _options(settings: ImageSettings, processor: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.size is not None:
        square = {"height": settings.size, "width": settings.size}
        by_edge = "shortest_edge" in (processor.size or {})  # such a processor cuts a square afterwards
        options["size"] = {"shortest_edge": settings.size} if by_edge else square
        if getattr(processor, "crop_size", None):
            options["crop_size"] = square
    if settings.mean is not None:
        options["image_mean"] = list(settings.mean)
    if settings.std is not None:
        options["image_std"] = list(settings.std)
    return options


def _processor(settings: ImageSettings, config: Any, folder: Path | None) -> Any:
    """The weights' processor, else one that resizes to the configuration's size and normalises to -1..1.

    Raises WeightsError if it cannot be loaded."""
    from transformers import AutoImageProcessor, ViTImageProcessor

    auto: Any = AutoImageProcessor
    if folder is not None and any((folder / name).is_file() for name in _FILES):
        try:
            return auto.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the processors raise errors of several libraries
            raise WeightsError(f"the image processor in {folder} cannot be loaded: {error}") from error
    size = getattr(_vision_config(config), "image_size", None)
    longest = max(size) if isinstance(size, list | tuple) and size else size
    edge = settings.size or (longest if isinstance(longest, int) and longest else _SIZE)
    return ViTImageProcessor(size={"height": edge, "width": edge})


class ImageClassifier(ImageReader, HfModel):
    """Chooses a label for an image: ``AutoModelForImageClassification``."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        self.processor = _processor(self.settings.image, self.base.config, built.folder)
        self._options = _options(self.settings.image, self.processor)
        self.image_shape = tuple(self.collate([Pillow.new("RGB", (640, 480))], [], [])["pixel_values"].shape[1:])

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:  # noqa: ARG002
        """``pixel_values`` (batch, 3, height, width) fp32."""
        rows = [image.convert("RGB") for image in images]
        pixels = self.processor(rows, return_tensors="pt", **self._options)["pixel_values"]
        return {"pixel_values": pixels.float()}

    def logits(self, batch: Batch) -> torch.Tensor:
        """Shape (batch, labels), in the order of the task's labels."""
        options: dict[str, Any] = {}
        # Positions of another image size than the weights' are interpolated, where the model can.
        can_interpolate = "interpolate_pos_encoding" in inspect.signature(self.base.forward).parameters
        if self.settings.image.size is not None and can_interpolate:
            options = {"interpolate_pos_encoding": True}
        return self.in_label_order(self.model(pixel_values=batch["pixel_values"], **options).logits)

    def save(self, folder: Path) -> None:
        """Write weights, configuration and image processor; the settings' values go into the processor."""
        super().save(folder)
        for name, value in self._options.items():
            setattr(self.processor, name, value)
        self.processor.save_pretrained(folder)

    def facts(self) -> dict[str, int | str]:
        """Also the edge of the images in pixels."""
        return super().facts() | {"image_size": self.image_shape[-1]}

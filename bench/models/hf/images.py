"""Image processors of transformers models: that of the weights, or one of the settings' sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import WeightsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models.hf import ImageSettings

_FILES = ("preprocessor_config.json", "processor_config.json")
_SIZE = 224
"""Edge where neither settings, weights nor configuration tell: what ImageNet's models are trained with."""


class Images:
    """Images to tensors."""

    def __init__(self, settings: ImageSettings, config: Any, folder: Path | None) -> None:
        """``folder``: of the weights; without it, or a processor in it, images are resized to the configuration's size
        and normalised to -1..1. Raises WeightsError if the processor cannot be loaded.
        """
        edge = settings.size or _edge(getattr(_seeing(config), "image_size", None)) or _SIZE
        if folder is not None and any((folder / name).is_file() for name in _FILES):
            self.processor = _read(folder)
        else:
            from transformers import ViTImageProcessor

            self.processor = ViTImageProcessor(size={"height": edge, "width": edge})
        self._options = _options(settings, self.processor)

    def pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """fp32 of shape (batch, 3, height, width)."""
        batch = self.processor([image.convert("RGB") for image in images], return_tensors="pt", **self._options)
        pixels: torch.Tensor = batch["pixel_values"].float()
        return pixels

    def shape(self) -> tuple[int, ...]:
        """Of one image, as ``pixels`` makes it of any."""
        from PIL import Image as Pillow

        return tuple(self.pixels([Pillow.new("RGB", (640, 480))]).shape[1:])

    def save(self, folder: Path) -> None:
        """With the settings' values, so that it needs none of them when it is read again."""
        for name, value in self._options.items():
            setattr(self.processor, name, value)
        self.processor.save_pretrained(folder)


def set_edge(config: Any, edge: int) -> None:
    """Let a configuration without weights have images of ``edge`` pixels, where it is made for one size."""
    if hasattr(own := _seeing(config), "image_size"):
        own.image_size = edge


def _seeing(config: Any) -> Any:
    """The configuration that says how large images are: of CLIP and its kin that of the vision tower."""
    return config if hasattr(config, "image_size") else getattr(config, "vision_config", config)


def _options(settings: ImageSettings, processor: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if settings.size is not None:
        square = {"height": settings.size, "width": settings.size}
        by_edge = "shortest_edge" in (processor.size or {})  # cut to a square behind it
        found["size"] = {"shortest_edge": settings.size} if by_edge else square
        if getattr(processor, "crop_size", None):
            found["crop_size"] = square
    if settings.mean is not None:
        found["image_mean"] = list(settings.mean)
    if settings.std is not None:
        found["image_std"] = list(settings.std)
    return found


def _edge(size: Any) -> int | None:
    """Configurations give one number or two."""
    value = max(size) if isinstance(size, list | tuple) and size else size
    return value if isinstance(value, int) else None


def _read(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    auto: Any = AutoImageProcessor
    try:
        return auto.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of several libraries
        raise WeightsError(f"the image processor in {folder} cannot be loaded: {error}") from error

"""Transformers models that choose a label for an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.models.hf.images import Images
from bench.models.hf.model import Batch, HfModel
from bench.models.hf.text import ordered
from bench.plugins.contracts import InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models.hf.builder import Built

_NO_TEXT = InputLengths(question_tokens=0, answer_tokens=0)


class ImageLabels(HfModel):
    """``AutoModelForImageClassification``."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        self.images = Images(self.settings.image, self.base.config, built.folder)

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:  # noqa: ARG002
        """``pixel_values`` (batch, 3, height, width) fp32."""
        return {"pixel_values": self.images.pixels(images)}

    def logits(self, batch: Batch) -> torch.Tensor:
        """Shape (batch, labels), in the order of the task's labels."""
        return ordered(self, self.model(pixel_values=batch["pixel_values"], **self._options()).logits)

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:  # noqa: ARG002
        """None: there is no text."""
        return _NO_TEXT

    def max_lengths(self) -> InputLengths:
        """None: there is no text."""
        return _NO_TEXT

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:  # noqa: ARG002
        """As ``collate``, on meta."""
        return {"pixel_values": torch.empty(batch_size, *self.images.shape(), device="meta")}

    def save(self, folder: Path) -> None:
        """With the image processor."""
        super().save(folder)
        self.images.save(folder)

    def facts(self) -> dict[str, int | str]:
        """And the edge of the images in pixels."""
        return super().facts() | {"image_size": self.images.shape()[-1]}

    def _options(self) -> dict[str, Any]:
        """Positions of another size than the weights' are interpolated, where the model can."""
        if self.settings.image.size is None:
            return {}
        import inspect

        takes = "interpolate_pos_encoding" in inspect.signature(self.base.forward).parameters
        return {"interpolate_pos_encoding": True} if takes else {}

"""Inputs of models that read images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.plugins.contracts import InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

_NO_TEXT = InputLengths(question_tokens=0, answer_tokens=0)


class ImageReader:
    """Lengths and shapes of a model that reads images alone."""

    image_shape: tuple[int, ...]
    """Channels, height and width of the images in a batch."""

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:  # noqa: ARG002
        """No text, no tokens."""
        return _NO_TEXT

    def max_lengths(self) -> InputLengths:
        """No text, no tokens."""
        return _NO_TEXT

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """As ``collate``, on meta."""
        return {"pixel_values": torch.empty(batch_size, *self.image_shape, device="meta")}


def stack_pixels(images: Sequence[Image], edge: int, resample: Resampling) -> torch.Tensor:
    """Images resized to squares, RGB 0..255, fp32 of shape (batch, 3, edge, edge)."""
    rows = [np.asarray(image.convert("RGB").resize((edge, edge), resample), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)

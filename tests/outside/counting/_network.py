"""The perceptron itself; imported in workers only, for it needs torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image
from torch import nn

from bench.errors import BenchError
from bench.plugins import InputLengths, PartFacts

if TYPE_CHECKING:
    from .perceptron import Settings

_NO_TEXT = InputLengths(question_tokens=0, answer_tokens=0)


class Perceptron:
    """See ``bench.plugins.contracts.LabelModel``."""

    has_vocabulary = True

    def __init__(self, settings: Settings, labels: int, parts: Mapping[str, PartFacts], device: str) -> None:
        self.part_facts = parts
        self._edge = settings.edge
        with torch.device(device):
            hidden = nn.Linear(settings.edge**2, settings.width)
            body = nn.Sequential(OrderedDict(flat=nn.Flatten(), hidden=hidden, gelu=nn.GELU()))
            self.module: nn.Module = nn.ModuleDict({"body": body, "head": nn.Linear(settings.width, labels)})

    def part(self, name: str) -> nn.Module:
        """``body`` or ``head``."""
        return self.module.get_submodule(name)

    def replace_part(self, name: str, adapted: nn.Module) -> None:
        """Put it where ``logits`` finds it."""
        self.module.set_submodule(name, adapted)

    def collate(
        self,
        images: Sequence[Image],
        questions: Sequence[str],  # noqa: ARG002
        answers: Sequence[str],  # noqa: ARG002
    ) -> dict[str, torch.Tensor]:
        """``pixels``: (batch, edge, edge) fp32 from 0 to 1."""
        scaled = [image.convert("L").resize((self._edge, self._edge)) for image in images]
        flat = torch.tensor([list(image.tobytes()) for image in scaled], dtype=torch.float32)
        return {"pixels": flat.view(-1, self._edge, self._edge) / 255}

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shape (batch, labels)."""
        logits: torch.Tensor = self.part("head")(self.part("body")(batch["pixels"]))
        return logits

    def checkpoint_activations(self) -> None:
        """There is one layer."""
        raise BenchError("a perceptron has nothing to checkpoint; set train.gradient_checkpointing to false")

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:  # noqa: ARG002
        """No text."""
        return _NO_TEXT

    def max_lengths(self) -> InputLengths:
        """No text."""
        return _NO_TEXT

    def meta_inputs(
        self,
        batch_size: int,
        lengths: InputLengths,  # noqa: ARG002
        *,
        with_answers: bool,  # noqa: ARG002
    ) -> dict[str, torch.Tensor]:
        """As ``collate``, on meta."""
        return {"pixels": torch.empty(batch_size, self._edge, self._edge, device="meta")}

    def facts(self) -> dict[str, int | str]:
        """Edge in pixels."""
        return {"image_size": self._edge}

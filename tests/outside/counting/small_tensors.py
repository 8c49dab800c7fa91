"""Train a part's small tensors only: biases, scales, narrow layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import SpecError
from bench.plugins import MethodSettings, PartFacts

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """What counts as small."""

    type: Literal["small_tensors"]
    most: int = Field(ge=1)
    """Entries of the largest tensor that is trained."""


def check(settings: Settings, part: PartFacts) -> None:
    """Fits any part; what is in it is seen when it is built."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of the tensors to train. Raises SpecError if there are none."""
    names = {name for name, tensor in module.named_parameters() if tensor.numel() <= settings.most}
    if not names:
        raise SpecError(f"part {part.name} has no tensor of at most {settings.most} entries; raise `most`")
    return names

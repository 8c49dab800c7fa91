"""Prefix tuning (Li and Liang 2021): trained keys and values in front of every layer, made by a small network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.methods.common import targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig


class Settings(MethodSettings):
    """Fields and meaning of ``peft.PrefixTuningConfig``; the defaults are the MILE paper's."""

    type: Literal["prefix"]
    num_virtual_tokens: int = Field(default=10, ge=1)
    prefix_projection: bool = True
    """Make the prefix from one embedding per virtual token by a two-layer network."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """Width of that network; null: the part's hidden size (768 in MISS, as in the paper)."""


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError if virtual tokens cannot be put on this part."""
    targets.check_prompts(settings.type, settings, part)


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
    """The library's configuration for this part."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(
        task_type=targets.task_type(part),
        num_virtual_tokens=settings.num_virtual_tokens,
        prefix_projection=settings.prefix_projection,
        encoder_hidden_size=settings.encoder_hidden_size or module.config.hidden_size,  # type: ignore[union-attr,arg-type]
    )

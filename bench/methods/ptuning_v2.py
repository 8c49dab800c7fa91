"""P-Tuning v2 (Liu et al. 2021): trained keys and values in front of every layer, without a network that makes them."""

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
    """``peft.PrefixTuningConfig`` without projection, as in the MILE paper."""

    type: Literal["ptuning_v2"]
    num_virtual_tokens: int = Field(default=10, ge=1)


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError if virtual tokens cannot be put on this part."""
    targets.check_prompts(settings.type, settings, part)


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:  # noqa: ARG001
    """The library's configuration for this part."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(
        task_type=targets.task_type(part), num_virtual_tokens=settings.num_virtual_tokens, prefix_projection=False
    )

"""LoRA (Hu et al. 2021): a trained low-rank update beside each target layer."""

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
    """Fields and meaning of ``peft.LoraConfig``; the defaults are the MILE paper's."""

    type: Literal["lora"]
    r: int = Field(default=8, ge=1)
    """Rank."""
    lora_alpha: int = Field(default=32, ge=1)
    """The update is scaled by ``lora_alpha / r``."""
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained, too."""
    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)`` instead."""
    use_dora: bool = False
    """Train the magnitude of each weight column, too (DoRA)."""
    modules_to_save: dict[str, list[str]] | None = None
    """Part -> module names that are trained whole beside the update and stored with it, e.g. newly added layers."""


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError if there is nothing to put the update on."""
    targets.known_targets(settings, part)


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
    """The library's configuration for this part."""
    from peft import LoraConfig

    return LoraConfig(
        task_type=targets.task_type(part),
        target_modules=targets.resolve_targets(settings, part, module),
        modules_to_save=targets.saved_modules((settings.modules_to_save or {}).get(part.name), part, module),
        **settings.model_dump(exclude={*MethodSettings.model_fields, "modules_to_save"}),
    )

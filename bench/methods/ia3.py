"""IA3 (Liu et al. 2022): a trained vector that rescales the keys, values and feed-forward activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.errors import SpecError
from bench.methods.common import targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig


class Settings(MethodSettings):
    """Fields and meaning of ``peft.IA3Config``."""

    type: Literal["ia3"]
    feedforward_modules: dict[str, list[str]] | None = None
    """Part -> those targets whose *input* is rescaled; without it, the model family's default."""


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError if there is nothing to rescale, or a feed-forward module is not a target."""
    known = targets.known_targets(settings, part)
    if isinstance(known, list) and (others := sorted(set(_feedforward(settings, part)) - set(known))):
        raise SpecError(
            f"ia3: feedforward_modules of part {part.name!r} must be among its targets {known}; not so: {others}"
        )


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
    """The library's configuration for this part."""
    from peft import IA3Config

    return IA3Config(
        task_type=targets.task_type(part),
        target_modules=targets.resolve_targets(settings, part, module),
        feedforward_modules=_feedforward(settings, part),
    )


def _feedforward(settings: Settings, part: PartFacts) -> list[str]:
    default = part.targets.get("ia3.feedforward_modules", [])
    if settings.targets and part.name in settings.targets:
        default = [name for name in default if name in settings.targets[part.name]]
    return (settings.feedforward_modules or {}).get(part.name, default)

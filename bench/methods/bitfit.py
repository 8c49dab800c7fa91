"""BitFit (Ben Zaken et al. 2022): only the biases are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.errors import SpecError
from bench.layer_kinds import biases
from bench.methods.common import targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """All biases of a part, shifts of normalisation layers and those of recurrent and fused layers among them, but no
    learnt tables of positions; or with ``targets`` those of the modules named there (and of what is in them)."""

    type: Literal["bitfit"]


def check(settings: Settings, part: PartFacts) -> None:
    """Every part may have biases: whether it does, only the built model can say."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of the biases. Raises SpecError if there are none."""
    layers = targets.layers_of(settings, part, module)
    names = targets.parameter_names(module, (p for layer in layers for p in biases(layer)))
    if not names:
        where = (settings.targets or {}).get(part.name) or "it"
        raise SpecError(f"there is no bias in {where}: nothing would be trained")
    return names

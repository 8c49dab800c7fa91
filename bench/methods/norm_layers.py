"""Only the normalisation layers are trained: their scales and shifts (Frankle et al. 2021 for batch normalisation,
Qi et al. 2022 for layer normalisation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.errors import SpecError
from bench.layer_kinds import is_norm
from bench.methods.common import targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """All layers of a part that normalise (torch's own, and those of a scale, perhaps a shift, and a small number to
    divide safely), or with ``targets`` those in the modules named there."""

    type: Literal["norm_layers"]


def check(settings: Settings, part: PartFacts) -> None:
    """Every part may have such layers: whether it does, only the built model can say."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of the scales and shifts. Raises SpecError if there are none."""
    norms = (layer for layer in targets.layers_of(settings, part, module) if is_norm(layer))
    names = targets.parameter_names(module, (p for layer in norms for p in layer.parameters(recurse=False)))
    if not names:
        where = (settings.targets or {}).get(part.name) or "it"
        raise SpecError(f"there is no normalisation layer in {where}: nothing would be trained")
    return names

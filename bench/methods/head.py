"""Only the head of a part is trained (linear probing, if it is one layer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.errors import SpecError
from bench.methods.common.targets import parameter_names, target_modules
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch

CUSTOMARY = ("classifier", "score", "lm_head", "head", "heads", "qa_outputs", "cls", "fc")
"""What transformers, timm and torchvision call a head."""


class Settings(MethodSettings):
    """The modules that ``targets`` names, else the model family's, else what a transformers model has outside its base
    model, else those of a customary name. A head that is tied to an embedding is trained with it: they are one tensor.
    """

    type: Literal["head"]


def check(settings: Settings, part: PartFacts) -> None:
    """Every part may have a head: whether it does, only the built model can say."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of the head's parameters. Raises SpecError if there is none."""
    targets = (settings.targets or {}).get(part.name, part.targets.get(settings.type))
    if targets is None:
        children = {name: own for name, own in module.named_children() if any(True for _ in own.parameters())}
        base = getattr(module, "base_model", module)
        outside = [name for name, child in children.items() if child is not base]
        targets = outside if base is not module else [name for name in CUSTOMARY if name in children]
    heads = target_modules(module, targets, part.name)
    names = parameter_names(module, (p for head in heads for p in head.parameters()))
    if not names:
        raise SpecError(f"no head was found; name it: targets: {{{part.name}: [...]}}")
    return names

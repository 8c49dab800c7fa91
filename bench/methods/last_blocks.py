"""The last k blocks of a part are trained, what comes before (and behind) them is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import SpecError
from bench.methods.common.blocks import blocks_of
from bench.methods.common.targets import parameter_names, target_modules
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """Blocks are what a model repeats: modules of one class in a list, with several weights each. Those of all stages,
    and of an encoder and a decoder, count as one sequence in order of execution. With ``targets`` only those in the
    modules named there."""

    type: Literal["last_blocks"]
    k: int = Field(ge=1)
    """How many."""


def check(settings: Settings, part: PartFacts) -> None:
    """Every part may have blocks: whether it does, only the built model can say."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of all parameters of the last blocks. Raises SpecError if there are fewer than ``k``, or none."""
    targets = (settings.targets or {}).get(part.name)
    stacks = [module] if targets is None else target_modules(module, targets, part.name)
    blocks = [block for stack in stacks for block in blocks_of(stack)]
    if targets is not None and not blocks:
        blocks = [child for stack in stacks for child in stack.children() if any(True for _ in child.parameters())]
    if not blocks:
        raise SpecError(f"no blocks were found; name what holds them: targets: {{{part.name}: [...]}}")
    if len(blocks) < settings.k:
        raise SpecError(f"k is {settings.k}, but there are {len(blocks)} blocks; lower k")
    return parameter_names(module, (p for block in blocks[-settings.k :] for p in block.parameters()))

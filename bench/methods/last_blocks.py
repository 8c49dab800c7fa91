"""The last k blocks of a part are trained, what comes before (and behind) them is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import SpecError
from bench.methods import _select
from bench.protocols import PartFacts
from bench.settings import MethodSettings

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """The stack of blocks is found by its shape: a list of two or more modules of one class with further modules in
    them, not itself in another such list. With ``targets`` it is what they name. A part with several stacks, such as
    encoder and decoder, trains the last blocks of each."""

    type: Literal["last_blocks"]
    k: int = Field(ge=1)
    """How many."""


def check(settings: Settings, part: PartFacts) -> None:
    """Every part may have blocks: whether it does, only the built model can say."""


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of all parameters of the last blocks. Raises SpecError if there are fewer than ``k``, or none."""
    targets = (settings.targets or {}).get(part.name)
    found = _stacks(module, "") if targets is None else _select.modules(module, targets, part.name).items()
    stacks = dict(found)
    if not stacks:
        raise SpecError(f"no stack of blocks was found; name it: targets: {{{part.name}: [...]}}")
    for name, stack in stacks.items():
        count = len(list(stack.children()))
        if count < settings.k:
            raise SpecError(f"k is {settings.k}, but {name} has {count} blocks; lower k or name another stack")
    blocks = [block for stack in stacks.values() for block in list(stack.children())[-settings.k :]]
    return _select.parameters(module, (p for block in blocks for p in block.parameters()))


def _stacks(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Outermost stacks and their names."""
    from torch import nn

    for name, child in module.named_children():
        blocks = list(child.children())
        alike = len({type(block) for block in blocks}) == 1 and all(list(block.children()) for block in blocks)
        if isinstance(child, nn.ModuleList | nn.Sequential) and len(blocks) > 1 and alike:
            yield f"{prefix}{name}", child
        else:
            yield from _stacks(child, f"{prefix}{name}.")

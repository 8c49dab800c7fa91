"""The blocks that a model repeats, in order of execution, found by what they hold and not by what they are called.

A block has several weights, and stands beside others of its class in a ``Sequential``, a list, or as a child with a
number in its name. What holds little but blocks, as the stages of a hierarchical model do, is taken apart; what a block
is made of, such as the experts of a mixture or two depthwise convolutions, is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bench.layer_kinds import is_norm

if TYPE_CHECKING:
    import torch

_STAGE = 0.5
"""Share of a stage's weights that its blocks hold at least; what is left joins stages, e.g. a downsampling layer."""


def blocks_of(module: torch.nn.Module) -> list[torch.nn.Module]:
    """All blocks in ``module``, in order of execution."""
    found = list(_candidates(module, nested=False))
    kinds = {type(block) for block in found if not _is_list(block)}
    if not kinds:
        return found
    ids = {id(block) for block in found}
    kinds -= {type(own) for own in module.modules() if any(id(inner) in ids for inner in _inside(own))}  # stages
    layers = {type(inner) for own in module.modules() if type(own) in kinds for inner in _inside(own)}
    return list(_collected(module, {id(block) for block in found if type(block) in kinds}, kinds - layers))


def _inside(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (own for own in module.modules() if type(own) is not type(module))


def _collected(module: torch.nn.Module, known: set[int], kinds: set[type]) -> Iterator[torch.nn.Module]:
    """The known ones, and all of these classes: a stage may have one block only."""
    for child in module.children():
        if id(child) in known or type(child) in kinds:
            yield child
        else:
            yield from _collected(child, known, kinds)


def _candidates(module: torch.nn.Module, *, nested: bool, of_list: bool = False) -> Iterator[torch.nn.Module]:
    """``nested``: inside what may itself be a block; ``of_list``: an entry of a list."""
    from torch import nn

    for children in _runs(module, nested=nested):
        repeated = len({type(child) for child in children}) < len(children)
        alone = len(children) == 1 and isinstance(module, nn.ModuleList)
        normed = nested or alone or not _is_list(module)
        joined = repeated or alone or (of_list and isinstance(module, nn.Sequential) and _is_list(module))
        if joined and any(_is_block(child, normed=normed) for child in children):
            for child in children:
                yield from _taken_apart(child, nested=nested)
        else:
            for child in children:
                yield from _candidates(child, nested=nested)


def _taken_apart(entry: torch.nn.Module, *, nested: bool) -> Iterator[torch.nn.Module]:
    """The blocks of a stage, or the entry itself if it is a block; none if it is neither."""
    inner = list(_candidates(entry, nested=nested or not _is_list(entry), of_list=True))
    if _is_list(entry):
        if inner:
            yield from inner
            return
    elif (
        inner
        and sum(map(_size, inner)) >= _STAGE * _size(entry)
        and all(_dense(block) > 1 and not _is_list(block) for block in inner)
    ):
        yield from inner
        return
    if _is_block(entry, normed=nested):
        yield entry


def _runs(module: torch.nn.Module, *, nested: bool) -> list[list[torch.nn.Module]]:
    """Children that may be repetitions of each other: all of a list; else neighbours of one class, which inside a block
    have numbers in their names."""
    children = list(module.named_children())
    if _is_list(module):
        return [[child for _, child in children]]
    runs: list[tuple[tuple[type, str], list[torch.nn.Module]]] = []
    for name, child in children:
        numbered = re.fullmatch(r"(.*?)\d+", name)
        kind = (type(child), (numbered[1] if numbered else name) if nested else "")
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(child)
        else:
            runs.append((kind, [child]))
    return [found for _, found in runs]


def _is_list(module: torch.nn.Module) -> bool:
    from torch import nn

    return type(module) in (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def _is_block(module: torch.nn.Module, *, normed: bool) -> bool:
    """``normed``: only what normalises is one. Inside another block this tells blocks from experts."""
    weights = [p for p in module.parameters() if p.ndim > 1]
    has_layers = any(True for _ in module.children())
    return has_layers and len(weights) > 1 and (not normed or any(is_norm(own) for own in module.modules()))


def _dense(module: torch.nn.Module) -> int:
    """Weights that mix channels: all but those of depthwise and grouped convolutions."""
    layers = [own for own in module.modules() if getattr(own, "groups", 1) == 1]
    return sum(p.ndim > 1 for own in layers for p in own.parameters(recurse=False))


def _size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)

"""What a layer or a tensor is, by what it holds, for models whose classes may have any name. Imports torch lazily."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TABLE = frozenset(("position", "pos", "rel", "relative", "alibi"))
"""Words in the names of learnt biases of positions: tables that attention looks up, not biases of a layer."""


def is_norm(layer: torch.nn.Module) -> bool:
    """Whether it normalises: one of torch's own layers that do, or one that has nothing but vectors (a scale and
    perhaps a shift) and a small number to divide safely. One without a scale of its own is none."""
    from torch.nn import GroupNorm, LayerNorm, RMSNorm
    from torch.nn.modules.batchnorm import _NormBase

    own = list(layer.parameters(recurse=False))
    if not own:
        return False
    if isinstance(layer, GroupNorm | LayerNorm | RMSNorm | _NormBase):
        return True
    vectors = all(p.numel() == max(p.shape, default=1) for p in own) and len(list(layer.parameters())) == len(own)
    return vectors and any("eps" in name and isinstance(value, float) for name, value in vars(layer).items())


def biases(layer: torch.nn.Module) -> list[torch.nn.Parameter]:
    """What the layer adds to its output, of its own tensors: ``bias``, ``in_proj_bias``, ``bias_ih_l0``, ``q_bias``,
    and whatever a normalisation layer calls its shift."""
    own = list(layer.named_parameters(recurse=False))
    words = {name: set(re.split(r"_|\d+", name)) for name, _ in own}
    found = [p for name, p in own if "bias" in words[name] and not words[name] & _TABLE]
    return found or [p for name, p in own if is_norm(layer) and words[name] & {"beta", "shift"}]

"""What virtual tokens and padding in front of a text need beside peft and transformers."""

from __future__ import annotations

import inspect
from typing import Any

import torch

PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")
"""Types of peft that put keys and values in front of every layer, as a cache."""


def number_positions(model: Any) -> None:
    """Count the positions of a text from its first token that is no padding, virtual tokens included.

    The library does so for most models in generation alone, and peft drops what it did: without it, an answer depends
    on how much padding the other texts of its batch bring.
    """
    if "position_ids" in inspect.signature(model.forward).parameters:
        model.register_forward_pre_hook(_number, with_kwargs=True)


def _number(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask, given = kwargs.get("attention_mask"), kwargs.get("input_ids")
    given = kwargs.get("inputs_embeds") if given is None else given
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and given is not None:
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        kwargs = kwargs | {"position_ids": positions[:, -given.shape[1] :]}
    return args, kwargs

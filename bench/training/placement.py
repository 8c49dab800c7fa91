"""What a method chose in a part, in a line: for the log of a cell and for the reader of an estimate."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft import PeftModel

_SHOWN = 8
_ITSELF = ""
"""Key of the part as a whole."""


def weights(part: torch.nn.Module) -> dict[str, int]:
    """Name of each module -> elements of its weight matrix or kernel; the whole part has those of all its tensors of
    two or more dimensions."""
    found = {
        name: own.weight.numel()
        for name, own in part.named_modules()
        if name and isinstance(getattr(own, "weight", None), torch.Tensor) and own.weight.ndim > 1
    }
    return found | {_ITSELF: sum(p.numel() for p in part.parameters() if p.ndim > 1)}


def of_adapter(wrapper: PeftModel, before: Mapping[str, int], source: str) -> str:
    """``adapters on 24 modules (fc1, fc2, qkv), 98 % of the part's weights; target_modules: peft's for llama``.

    ``before``: see ``weights``, of the part without the adapter. ``source``: whose default the targets are, if any.
    """
    config = wrapper.active_peft_config
    if config.is_prompt_learning:
        shape = (f"{name} {getattr(config, name)}" for name in ("num_layers", "token_dim", "num_attention_heads"))
        return f"{config.num_virtual_tokens} virtual tokens; {', '.join(shape)}"
    names = list(getattr(wrapper.base_model, "targeted_module_names", ()))
    names += getattr(wrapper.base_model, "targeted_parameter_names", ())
    if not names:
        return f"{config.peft_type.value} as the library places it"
    covered = sum(before.get(name, 0) for name in names)
    share = f", {_percent(covered, before[_ITSELF])} of the part's weights" if covered else ""
    whose = f"; target_modules: {source}" if source else ""
    kinds = _shortened([name.rpartition(".")[2] for name in names])
    return f"adapters on {_count(names, 'module')} ({kinds}){share}{whose}"


def of_tensors(part: torch.nn.Module, names: Collection[str]) -> str:
    """``trains 12 tensors, 7.9 % of the part's parameters: blocks.11``."""
    trained = sum(part.get_parameter(name).numel() for name in names)
    total = sum(p.numel() for p in part.parameters())
    whole = _covering(part, set(names), "")
    where = whole if len(whole) <= _SHOWN else [re.sub(r"\d+", "*", path) for path in whole]
    return f"trains {_count(names, 'tensor')}, {_percent(trained, total)} of the part's parameters: {_shortened(where)}"


def _covering(module: torch.nn.Module, names: set[str], prefix: str) -> list[str]:
    """The largest modules all of whose tensors are among ``names``, and the tensors of others."""
    own = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    if own and names.issuperset(own):
        return [prefix.removesuffix(".") or "all of it"]
    found = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False) if f"{prefix}{name}" in names]
    for name, child in module.named_children():
        found += _covering(child, names, f"{prefix}{name}.")
    return found


def _shortened(words: Collection[str]) -> str:
    distinct = list(dict.fromkeys(words))
    more = [f"{len(distinct) - _SHOWN} more"] if len(distinct) > _SHOWN else []
    return ", ".join([*distinct[:_SHOWN], *more])


def _count(names: Collection[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"

"""Does the model train what the freeze pattern says? A cell that answers no must fail, not print a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase

import torch

from bench.errors import AuditError
from bench.plugins.contracts import BenchModel
from bench.training.adapt import FROZEN, TRAINED, AppliedMethod

_SHOWN = 5


def check_frozen(model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]) -> None:
    """Per part: ``F`` trains nothing, ``T`` everything, a method what it says and nothing else.

    Raises AuditError that names the part and the tensors.
    """
    in_parts: set[int] = set()
    for part, action in parts.items():
        named = dict(model.part(part).named_parameters())
        in_parts |= {id(p) for p in named.values()}
        trained = {name for name, p in named.items() if p.requires_grad}
        if action == FROZEN:
            _refuse(trained, f"part {part} is frozen (F), yet trains")
        elif action == TRAINED:
            _refuse(named.keys() - trained, f"part {part} is trained (T), yet keeps frozen")
        else:
            _check_method(part, action, named.keys(), trained, adapters)
    outside = {n for n, p in model.module.named_parameters() if p.requires_grad and id(p) not in in_parts}
    _refuse(outside, "trained, yet in no part of the freeze pattern:")


def _check_method(
    part: str, method: str, named: AbstractSet[str], trained: set[str], adapters: Mapping[str, AppliedMethod]
) -> None:
    if part not in adapters:
        raise AuditError(f"part {part}: no adapter of {method} was put on it")
    own, peft = adapters[part].names, adapters[part].peft
    if not trained or not own:
        raise AuditError(f"part {part}: {method} trains nothing; do its targets name modules of this part?")
    with_biases = peft is not None and getattr(peft.active_peft_config, "bias", "none") not in ("none", False)
    allowed = own | {name for name in named if with_biases and name.endswith("bias")}
    _refuse(trained - allowed, f"part {part} has {method}, yet trains tensors of the model itself:")
    _refuse(own - trained, f"part {part}: adapter tensors of {method} are frozen:")


def check_gradients(model: BenchModel, *, finite: bool = True) -> None:
    """After the first backward pass: every trainable tensor has a gradient, and a finite one.

    A gradient of zeros is right in the first step for LoRA's A (B starts at zero), so zeros pass; a missing gradient
    says that the tensor takes no part in the loss. ``finite=False`` where a loss scaler handles overflows.
    Raises AuditError that names the tensors.
    """
    trainable = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
    without = {n for n, p in trainable.items() if p.grad is None}
    if without:
        _refuse(without, "trained, yet without a gradient in the first step:", _to_freeze(model, without))
    if finite:
        infinite = {n for n, p in trainable.items() if p.grad is not None and not is_finite(p.grad)}
        _refuse(infinite, "NaN or infinite gradient in the first step:")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are, found without memory of the tensor's size: ``isfinite`` would take half as much again,
    and could become the peak that is measured.
    """
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())  # NaN is both


def _to_freeze(model: BenchModel, names: AbstractSet[str]) -> str:
    """How to train a part without tensors that take no part in the loss."""
    ids = {id(p) for name, p in model.module.named_parameters() if name in names}
    remedies = []
    for part in model.part_facts:
        inside = dict(model.part(part).named_parameters())
        unused = {name for name, p in inside.items() if id(p) in ids}
        if any("base_model." in name for name in unused):
            remedies.append(f"part {part}: leave their layers out of the method's targets (target_modules)")
        elif unused:
            shown = ", ".join(f'"{pattern}"' for pattern in _patterns(unused, inside.keys()))
            remedies.append(f"part {part}: a method {{type: subset, exclude: [{shown}]}} in place of T")
    how = f"; train the rest: {'; '.join(remedies)}" if remedies else ""
    return f". They take no part in this task's loss{how}"


def _patterns(unused: AbstractSet[str], names: AbstractSet[str]) -> list[str]:
    """Few patterns that mean all of ``unused`` and no others of ``names``."""
    found = set()
    for name in unused:
        any_block = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
        wide = [f"{any_block.rpartition('.')[0]}.*"] if "." in name else []
        found.add(
            next(each for each in (*wide, any_block, name) if {n for n in names if fnmatchcase(n, each)} <= unused)
        )
    return sorted(found)


def _refuse(names: AbstractSet[str], what: str, remedy: str = "") -> None:
    if names:
        shown = ", ".join(sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise AuditError(f"{what} {shown}{more}{remedy}")

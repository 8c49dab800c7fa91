"""What the methods that train some of a part's own tensors share: naming modules and parameters, and saying what is
near a name that means none.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bench.errors import SpecError

if TYPE_CHECKING:
    import torch


def modules(module: torch.nn.Module, targets: Sequence[str] | str, part: str) -> dict[str, torch.nn.Module]:
    """The modules that ``targets`` names as peft understands it: ends of dotted names, or one regular expression for
    the whole name. Raises SpecError, with the nearest names, for a target that names none.
    """
    named = {name: own for name, own in module.named_modules() if name}
    if isinstance(targets, str):
        found = {name: own for name, own in named.items() if re.fullmatch(targets, name)}
        return found if found else nothing(targets, named, f"module of part {part!r}")
    found = {}
    for target in targets:
        meant = {name: own for name, own in named.items() if name == target or name.endswith(f".{target}")}
        found |= meant if meant else nothing(target, named, f"module of part {part!r}")
    return found


def parameters(module: torch.nn.Module, wanted: Iterable[torch.nn.Parameter]) -> set[str]:
    """Their names in ``module``; a tied one has the name that it has first."""
    ids = {id(parameter) for parameter in wanted}
    return {name for name, parameter in module.named_parameters() if id(parameter) in ids}


def nothing(pattern: str, names: Iterable[str], what: str) -> dict[str, torch.nn.Module]:
    """Raise SpecError: ``pattern`` means no ``what``; it ends with the nearest names."""
    steps = pattern.count(".") + 1
    if "*" in pattern and steps == 1:  # whose step may be any
        ends = {step: None for name in names for step in name.split(".") if not step.isdigit()}
    else:
        ends = {".".join(name.split(".")[-steps:]): None for name in names}
    near = difflib.get_close_matches(pattern.strip("*."), list(ends), n=3, cutoff=0.4) or list(ends)[:3]
    raise SpecError(f"{pattern!r} names no {what}; nearest: {', '.join(near)}")

"""Names of a part's modules and parameters, as a spec gives them and the library understands them."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from bench.errors import SpecError
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import TaskType

ALL_LINEAR = "all-linear"
"""Stands for names of modules in the library."""
# What the library itself saves beside an adapter of a model for labels, whichever of them the model has.
_SAVED_BY_PEFT = ("classifier", "score", "qa_outputs")


def matching(targets: Sequence[str] | str, names: Iterable[str]) -> list[str]:
    """Names that ``targets`` match as in peft: as ends of dotted names, or as one regular expression for all of it."""
    if isinstance(targets, str):
        return [name for name in names if re.fullmatch(targets, name)]
    return [name for name in names if any(name == end or name.endswith(f".{end}") for end in targets)]


def module_names(module: torch.nn.Module) -> list[str]:
    """Dotted names of all modules inside."""
    return [name for name, _ in module.named_modules() if name]


def target_modules(module: torch.nn.Module, targets: Sequence[str] | str, part: str) -> list[torch.nn.Module]:
    """The modules that ``targets`` match. Raises SpecError, with the nearest names, for a target that matches none."""
    names = module_names(module)
    matched: dict[str, None] = {}
    for target in [targets] if isinstance(targets, str) else [[target] for target in targets]:
        own = matching(target, names)
        if not own:
            refuse_unknown("".join(target), names, f"module of part {part!r}")
        matched |= dict.fromkeys(own)
    return [module.get_submodule(name) for name in matched]


def layers_of(settings: MethodSettings, part: PartFacts, module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """All layers of a part, or with ``targets`` of the modules named there."""
    targets = (settings.targets or {}).get(part.name)
    for owner in [module] if targets is None else target_modules(module, targets, part.name):
        yield from owner.modules()


def parameter_names(module: torch.nn.Module, wanted: Iterable[torch.nn.Parameter]) -> set[str]:
    """Names of these parameters in ``module``; a tied parameter keeps its first name."""
    ids = {id(parameter) for parameter in wanted}
    return {name for name, parameter in module.named_parameters() if id(parameter) in ids}


def refuse_unknown(pattern: str, names: Iterable[str], what: str) -> NoReturn:
    """Raise SpecError: ``pattern`` names no ``what``; the message ends with the nearest names."""
    steps = pattern.count(".") + 1
    if "*" in pattern and steps == 1:  # any step may match
        ends = {step: None for name in names for step in name.split(".") if not step.isdigit()}
    else:
        ends = {".".join(name.split(".")[-steps:]): None for name in names}
    near = difflib.get_close_matches(pattern.strip("*."), list(ends), n=3, cutoff=0.4) or list(ends)[:3]
    raise SpecError(f"{pattern!r} names no {what}; nearest: {', '.join(near)}")


def own_targets(settings: MethodSettings, part: PartFacts, module: torch.nn.Module) -> list[str] | str | None:
    """What the spec's ``targets`` give for the part; null if nothing.

    Raises SpecError, with the nearest names, for one that matches no module: peft ignores it if another matches.
    """
    targets = (settings.targets or {}).get(part.name)
    if targets and targets != ALL_LINEAR:
        target_modules(module, targets, part.name)
    return targets


def saved_modules(names: Sequence[str] | None, part: PartFacts, module: torch.nn.Module) -> list[str] | None:
    """``modules_to_save`` unchanged. Raises SpecError for one that names no module: peft ignores it."""
    known = module_names(module)
    for name in names or ():
        if name not in _SAVED_BY_PEFT and not any(own.endswith(name) for own in known):
            refuse_unknown(name, known, f"module of part {part.name!r} (modules_to_save)")
    return None if names is None else list(names)


def resolve_targets(
    settings: MethodSettings, part: PartFacts, module: torch.nn.Module | None = None
) -> list[str] | str:
    """The module names the adapter is put on.

    Raises SpecError if neither spec nor model family has any, or one of the spec's is not in ``module``.
    """
    if module is not None:
        own_targets(settings, part, module)
    targets = (settings.targets or {}).get(part.name, part.targets.get(settings.type))
    if not targets:
        raise SpecError(
            f"method type {settings.type!r} has no target modules on part {part.name!r}; "
            f"name them: targets: {{{part.name}: [...]}}"
        )
    return targets


def known_targets(settings: MethodSettings, part: PartFacts) -> list[str] | str | None:
    """As ``resolve_targets`` when a spec is validated; null for a part whose layers only the built model knows."""
    if not part.targets and part.name not in (settings.targets or {}):
        return None
    return resolve_targets(settings, part)


def task_type(part: PartFacts) -> TaskType | None:
    """peft's task type of a part: it decides the wrapper, and so how prompts reach ``generate``."""
    from peft import TaskType

    return TaskType(part.task_type) if part.task_type else None


def check_prompts(name: str, settings: MethodSettings, part: PartFacts) -> None:
    """Raise SpecError if the virtual tokens of the method ``name`` cannot be put on this part."""
    if part.task_type is None:
        raise SpecError(
            f"{name} needs a text model as a whole; part {part.name!r} takes no virtual tokens: choose another method "
            'for it, or a part that is such a model (where `model.parts` takes patterns, "" is the whole model)'
        )
    if settings.targets:
        raise SpecError(f"{name} has no target modules; remove `targets`")


def as_library_class(config_class: type, field: str, value: Any) -> Any:
    """A mapping as the dataclass that peft wants for this field, e.g. ``EvaConfig``; other values unchanged."""
    if not isinstance(value, dict):
        return value
    annotation = typing.get_type_hints(config_class)[field]
    options = typing.get_args(annotation) or (annotation,)
    wanted = next((option for option in options if dataclasses.is_dataclass(option)), None)
    return wanted(**value) if isinstance(wanted, type) else value

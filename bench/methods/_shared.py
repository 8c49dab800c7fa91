"""What several methods need: target modules of a part, and the task type of the library's wrapper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError
from bench.methods import _select
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import TaskType


ALL_LINEAR = "all-linear"
"""Stands for names of modules in the library."""
_OF_ANY_MODEL = ("classifier", "score", "qa_outputs")
"""What the library itself saves beside an adapter of a model for labels, whichever of them the model has."""


def own_targets(settings: MethodSettings, part: PartFacts, module: torch.nn.Module) -> list[str] | str | None:
    """What ``targets`` says about the part; null if nothing.

    Raises SpecError, with the nearest names, for one that names no module: beside others the library passes over it.
    """
    given = (settings.targets or {}).get(part.name)
    if given and given != ALL_LINEAR:
        _select.modules(module, given, part.name)
    return given


def saved(names: Sequence[str] | None, part: PartFacts, module: torch.nn.Module) -> list[str] | None:
    """``modules_to_save`` as it is. Raises SpecError for one that names no module: the library passes over it."""
    known = [name for name, _ in module.named_modules() if name]
    for name in names or ():
        if name not in _OF_ANY_MODEL and not any(own.endswith(name) for own in known):
            _select.nothing(name, known, f"module of part {part.name!r} (modules_to_save)")
    return None if names is None else list(names)


def targets(settings: MethodSettings, part: PartFacts, module: torch.nn.Module | None = None) -> list[str] | str:
    """The module names the adapter is put on. Raises SpecError if neither spec nor model family has any, or one of the
    spec's is not in ``module``."""
    if module is not None:
        own_targets(settings, part, module)
    given = (settings.targets or {}).get(part.name, part.targets.get(settings.type))
    if not given:
        raise SpecError(
            f"method type {settings.type!r} has no target modules on part {part.name!r}; "
            f"name them: targets: {{{part.name}: [...]}}"
        )
    return given


def known_targets(settings: MethodSettings, part: PartFacts) -> list[str] | str | None:
    """The same when a spec is validated: null for a part whose layers only the built model knows (no facts of it)."""
    if not part.targets and part.name not in (settings.targets or {}):
        return None
    return targets(settings, part)


def task_type(part: PartFacts) -> TaskType | None:
    """The library's task type of a part: it chooses the wrapper, and so how prompts reach ``generate``."""
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
    """A mapping as the dataclass that the library wants for this field, e.g. ``EvaConfig``; other values unchanged."""
    import dataclasses
    import typing

    if not isinstance(value, dict):
        return value
    annotation = typing.get_type_hints(config_class)[field]
    options = typing.get_args(annotation) or (annotation,)
    wanted = next((option for option in options if dataclasses.is_dataclass(option)), None)
    return wanted(**value) if isinstance(wanted, type) else value

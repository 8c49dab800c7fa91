"""Which modules a method of the library is put on where a spec names none: those that the library itself takes for the
architecture; where it knows none, those of the model family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError
from bench.layer_kinds import is_norm
from bench.methods.common import library
from bench.methods.common.targets import matching, module_names, own_targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch

_TARGETS, _FEEDFORWARD, _PARAMETERS = "target_modules", "feedforward_modules", "target_parameters"
_OF_FAMILY = "lora"
"""Whose targets in a model family a method of linear layers takes if the family has none for it."""
_OF_NORMS = "ln_tuning"
"""Goes on normalisation layers."""


def fields(
    method: library.LibraryMethod,
    settings: MethodSettings,
    given: Mapping[str, Any],
    part: PartFacts,
    module: torch.nn.Module,
) -> dict[str, Any]:
    """The fields that the spec has ``given``, and defaults for those that depend on the model."""
    name, given = method.peft_type.lower(), dict(given)
    own: dict[str, Any] = {
        field: part.targets[f"{name}.{field}"] for field in method.fields if f"{name}.{field}" in part.targets
    }
    if "hidden_size" in method.fields and (width := getattr(getattr(module, "config", None), "hidden_size", None)):
        own = {"hidden_size": width} | own
    if (named := own_targets(settings, part, module)) is not None:
        given[_TARGETS] = named
    if _TARGETS not in method.fields:
        return own | given
    if _TARGETS in given or given.get(_PARAMETERS):
        if isinstance(given.get(_TARGETS), list) and _FEEDFORWARD in own:
            own[_FEEDFORWARD] = [target for target in own[_FEEDFORWARD] if target in given[_TARGETS]]
        return own | given
    architecture = _architecture(part, module)
    if (known := _of_library(method, architecture, module)) is not None:
        if _FEEDFORWARD in method.fields:
            own[_FEEDFORWARD] = library.default_modules(name, architecture, _FEEDFORWARD) or []
        return own | {_TARGETS: known} | given
    if of_family := _of_family(method, part, module):
        return own | {_TARGETS: of_family} | given
    if not architecture:
        _refuse_other_layers(method, part)
    return own | given


def source(
    method: library.LibraryMethod,
    settings: MethodSettings,
    given: Mapping[str, Any],
    part: PartFacts,
    module: torch.nn.Module | None = None,
) -> str:
    """Whose default the target modules are; empty if the spec names them, if the method has none by architecture, or if
    the architecture is not known yet. Without the built ``module``, a part is taken to have the library's."""
    if "Linear" not in method.layers and method.peft_type.lower() != _OF_NORMS:
        return ""
    if part.name in (settings.targets or {}) or _TARGETS in given or given.get(_PARAMETERS):
        return ""
    architecture = part.architecture if module is None else _architecture(part, module)
    if module is not None and _of_library(method, architecture, module) is None:
        return "the model family's defaults (peft has none here)"
    if library.default_modules(method.peft_type, architecture) is not None:
        return f"peft's defaults for {architecture}"
    return "" if part.architecture == "" else "the model family's defaults (peft has none here)"


def _of_library(
    method: library.LibraryMethod, architecture: str | None, module: torch.nn.Module
) -> list[str] | str | None:
    """Null if the library has none for it, or none of them is in this part."""
    targets = library.default_modules(method.peft_type, architecture)
    if targets is None:
        return None
    names = module_names(module)
    if isinstance(targets, str):
        return targets if matching(targets, names) else None
    return [target for target in targets if matching([target], names)] or None


def _of_family(method: library.LibraryMethod, part: PartFacts, module: torch.nn.Module) -> list[str] | None:
    name = method.peft_type.lower()
    targets = part.targets.get(name)
    if targets is None and "Linear" in method.layers:
        fitting = [name for name, layer in module.named_modules() if _layer_kind(layer) in method.layers]
        targets = [target for target in part.targets.get(_OF_FAMILY, []) if matching([target], fitting)]
    if name == _OF_NORMS:
        targets = targets or [own for own, layer in module.named_modules() if own and is_norm(layer)]
    return targets


def _refuse_other_layers(method: library.LibraryMethod, part: PartFacts) -> None:
    """Raise SpecError if the layers that adapters usually go on here are of kinds that this method has none for."""
    if "Linear" in method.layers and part.targets.get(_OF_FAMILY):
        raise SpecError(
            f"{method.peft_type} has adapters for layers of the kinds {', '.join(method.layers)}, and none of "
            f"{part.targets[_OF_FAMILY]} is one; choose another method, or name others: "
            f"targets: {{{part.name}: [...]}}"
        )


def _architecture(part: PartFacts, module: torch.nn.Module) -> str | None:
    """By which the library knows default targets; null for a part of no model of transformers."""
    of_module: str | None = getattr(getattr(module, "config", None), "model_type", None)
    return of_module or part.architecture


def _layer_kind(module: torch.nn.Module) -> str:
    """As the library names its adapters' classes; transformers' ``Conv1D`` of GPT-2 is a linear layer."""
    kind = type(module).__name__
    return "Linear" if kind == "Conv1D" else kind

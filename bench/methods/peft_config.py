"""Any method of the installed ``peft``, by its ``peft_type`` and the library's own field names, or by a configuration
file as ``save_pretrained`` writes it. Fields and defaults are those of the installed release.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from bench.errors import SpecError
from bench.methods import _library, _select, _shared
from bench.protocols import PartFacts
from bench.registry import did_you_mean
from bench.settings import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel

IMPLIED_BY = ("peft_type", "adapter_config")
"""A method with one of these fields needs no ``type``."""
_CONFIG_FILE = "adapter_config.json"
_DEFAULT_TARGETS = "lora"
"""Whose default targets a method of linear layers takes if the model family has none for it."""
_OF_NORMS = "ln_tuning"
"""Goes on normalisation layers, whose names the library knows of few architectures."""
_TASK_COUNTS = ("n_tasks", "num_tasks")
"""Fields of methods that several tasks share."""
_MIXED = "adapters"
"""Field of a method (X-LoRA) that trains nothing but how trained adapters are mixed."""


class Settings(MethodSettings):
    """Beside these fields, those of the type's configuration class (``peft.VeraConfig`` and so on), but for
    ``task_type``, which the part decides."""

    model_config = ConfigDict(extra="allow")

    type: Literal["peft_config"] = "peft_config"
    peft_type: str = ""
    """``VERA``, ``loha``, ... as ``peft.PeftType`` names it, in upper or lower case; without it, that of
    ``adapter_config``."""
    adapter_config: str | None = Field(default=None, json_schema_extra={"format": "path"})
    """``adapter_config.json`` of a saved adapter, or its folder, looked up from the working directory. Its fields are
    taken as if they stood here; fields that do stand here win."""

    @model_validator(mode="wrap")
    @classmethod
    def _of_the_library(cls, value: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        if not isinstance(value, dict):
            return handler(value)
        given = _with_file(value)
        own = {name: given[name] for name in given if name in MethodSettings.model_fields or name in cls.model_fields}
        peft_type = given.get("peft_type", "")
        try:
            method = _library.method(str(peft_type))
        except SpecError as error:
            raise _errors([(("peft_type",), "value_error", {"error": str(error)}, peft_type)]) from None
        fields = _checked(method, {name: given[name] for name in given if name not in own})
        return handler(own | {"peft_type": method.peft_type} | fields)

    def fields(self) -> dict[str, Any]:
        """The library's fields that differ from its defaults."""
        return dict(self.model_extra or {})


def _with_file(given: dict[str, Any]) -> dict[str, Any]:
    """``given`` over the fields of its ``adapter_config``."""
    place = given.get("adapter_config")
    if not isinstance(place, str):
        return given
    path = Path(place) / _CONFIG_FILE if Path(place).is_dir() else Path(place)
    try:
        content = _read(path)
    except OSError as error:
        message = f"{error.strerror}; give the file or folder that save_pretrained wrote"
    except ValidationError as error:
        message = _first(error)
    except (ValueError, SpecError) as error:
        message = str(error)
    else:
        return content | {name: value for name, value in given.items() if name != "adapter_config"}
    raise _errors([(("adapter_config",), "value_error", {"error": f"{path}: {message}"}, place)])


def _read(path: Path) -> dict[str, Any]:
    """Type and fields of a configuration file. Raises OSError, ValueError, SpecError."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "peft_type" not in content:
        raise ValueError("names no peft_type; give a file that save_pretrained wrote")
    method = _library.method(str(content["peft_type"]))
    fields = {name: value for name, value in content.items() if name not in _library.NOT_OF_THE_METHOD}
    return {"peft_type": method.peft_type, **_checked(method, fields)}


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    known = first.get("ctx", {}).get("known")
    if known is not None:
        hint = did_you_mean(place, known)
        return f"field {place!r} is unknown to the installed peft{hint}; remove it or install the peft that wrote it"
    return f"field {place!r}: {first['msg']}"


def _checked(method: _library.LibraryMethod, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that differ from the library's defaults, as JSON. Raises ValidationError with every one that is wrong.

    Strict, as the spec is; a null where the library's default is null is none given.
    """
    try:
        checked = method.settings.model_validate_json(json.dumps(fields, allow_nan=False), strict=True)
    except ValidationError as error:
        known = list(method.own_fields)
        raise _errors(
            [
                (line["loc"], "unknown_field", {"known": known}, line["input"])
                if line["type"] == "extra_forbidden"
                else (line["loc"], line["type"], line.get("ctx", {}) | {"message": line["msg"]}, line["input"])
                for line in error.errors(include_url=False)
            ]
        ) from None
    plain: dict[str, Any] = checked.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in plain.items() if value != method.fields[name].default}


def _errors(found: list[tuple[tuple[int | str, ...], Any, dict[str, Any], Any]]) -> ValidationError:
    """Errors that pydantic reports at their places below this method's."""
    template = {"unknown_field": "unknown field", "value_error": "{error}"}
    lines = [
        InitErrorDetails(type=PydanticCustomError(kind, template.get(kind, "{message}"), context), loc=loc, input=value)
        for loc, kind, context, value in found
    ]
    return ValidationError.from_exception_data("peft", lines)


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError if this takes virtual tokens and the part none, has targets and no module to put them on, or
    lacks what it is made of."""
    method = _library.method(settings.peft_type)
    if _MIXED in method.fields and not settings.fields().get(_MIXED):
        raise SpecError(
            f"{settings.peft_type} mixes LoRA adapters that were trained before; "
            f"name them: {_MIXED}: {{one: FOLDER, ...}}"
        )
    if method.takes_prompts:
        _shared.check_prompts(method.peft_type, settings, part)
    elif settings.targets and part.name in settings.targets and "target_modules" not in method.fields:
        raise SpecError(f"{settings.peft_type} has no target modules; remove `targets`")


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
    """The library's configuration for this part. Raises what the library raises for values that it refuses."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    method = _library.method(settings.peft_type)
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.peft_type)]
    fields = _defaults(method, part, module) | settings.fields()
    if (targets := _shared.own_targets(settings, part, module)) is not None:
        fields["target_modules"] = targets
    elif "target_modules" not in fields and not _model_type(module):
        _refuse_other_layers(method, part)
    if isinstance(names := fields.get("modules_to_save"), list):
        _shared.saved(names, part, module)
    fields = {name: _shared.as_library_class(config_class, name, value) for name, value in fields.items()}
    return config_class(task_type=_shared.task_type(part), **fields)


def finish(settings: Settings, wrapper: PeftModel) -> None:
    """Tell an adapter that several tasks would share (Poly, multi-task prompts) of the only one that a cell has."""
    if not any(name in _library.method(settings.peft_type).fields for name in _TASK_COUNTS):
        return
    if wrapper.active_peft_config.is_prompt_learning:  # whose encoder of prompts may be replaced later
        wrapper.get_prompt = partial(_prompt_of_first_task, wrapper, wrapper.get_prompt)  # type: ignore[method-assign]
        return
    for module in wrapper.modules():
        if "task_ids" in inspect.signature(module.forward).parameters and hasattr(module, "get_base_layer"):
            module.register_forward_pre_hook(_with_first_task, with_kwargs=True)


def _prompt_of_first_task(wrapper: PeftModel, get: Callable[..., Any], batch_size: int, *_: Any, **given: Any) -> Any:
    device = next(wrapper.prompt_encoder.parameters()).device
    return get(batch_size, **given | {"task_ids": _first_task(batch_size, device)})


def _with_first_task(
    _: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, given | {"task_ids": _first_task(len(args[0]), args[0].device)}


def _first_task(rows: int, device: torch.device) -> torch.Tensor:
    """Shape (rows), int64."""
    import torch

    return torch.zeros(rows, dtype=torch.long, device=device)


def _defaults(method: _library.LibraryMethod, part: PartFacts, module: torch.nn.Module) -> dict[str, Any]:
    """What the model family says about this method on this part; else the library's own defaults hold."""
    name = method.peft_type.lower()
    options = {field: part.targets[f"{name}.{field}"] for field in method.fields if f"{name}.{field}" in part.targets}
    targets = part.targets.get(name)
    if targets is None and "Linear" in method.layers:
        targets = [
            target
            for target in part.targets.get(_DEFAULT_TARGETS, [])
            if any(_layer_kind(own) in method.layers for name, own in module.named_modules() if _means(target, name))
        ]
    if name == _OF_NORMS and not _knows_norms_of(module):
        targets = targets or [own for own, layer in module.named_modules() if own and _select.is_norm(layer)]
    if "hidden_size" in method.fields and (width := getattr(getattr(module, "config", None), "hidden_size", None)):
        options = {"hidden_size": width} | options
    return options | ({"target_modules": targets} if targets and "target_modules" in method.fields else {})


def _refuse_other_layers(method: _library.LibraryMethod, part: PartFacts) -> None:
    """Raise SpecError if the layers that adapters usually go on here are of kinds that this method has none for."""
    if "Linear" in method.layers and part.targets.get(_DEFAULT_TARGETS):
        raise SpecError(
            f"{method.peft_type} has adapters for layers of the kinds {', '.join(method.layers)}, and none of "
            f"{part.targets[_DEFAULT_TARGETS]} is one; choose another method, or name others: "
            f"targets: {{{part.name}: [...]}}"
        )


def _knows_norms_of(module: torch.nn.Module) -> bool:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING as KNOWN

    return _model_type(module) in KNOWN


def _model_type(module: torch.nn.Module) -> str | None:
    """By which the library knows default targets of some architectures; null for a part of a model."""
    return getattr(getattr(module, "config", None), "model_type", None)


def _means(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _layer_kind(module: torch.nn.Module) -> str:
    """As the library names its adapters' classes; transformers' ``Conv1D`` of GPT-2 is a linear layer."""
    kind = type(module).__name__
    return "Linear" if kind == "Conv1D" else kind

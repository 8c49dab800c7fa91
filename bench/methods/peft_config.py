"""Any method of the installed ``peft``, by its ``peft_type`` and the library's own field names, or by a configuration
file as ``save_pretrained`` writes it. Fields and defaults are those of the installed release.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from bench.errors import SpecError
from bench.methods.common import default_targets, effects, library, targets
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings
from bench.registry import did_you_mean

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel

IMPLIED_BY = ("peft_type", "adapter_config")
"""A method with one of these fields needs no ``type``."""
_CONFIG_FILE = "adapter_config.json"
_TASK_COUNTS = ("n_tasks", "num_tasks")
"""Fields of methods that several tasks share."""
_MIXED = "adapters"
"""Field of a method (X-LoRA) that trains nothing but how trained adapters are mixed."""
_IGNORED = re.compile(r"\bignored\b|not used|no effect|only supported")
"""What the library's warnings say of a field that it does not read."""


class Settings(MethodSettings):
    """Beside these fields, those of the type's configuration class (``peft.VeraConfig`` and so on)."""

    model_config = ConfigDict(extra="allow")

    type: Literal["peft_config"] = "peft_config"
    peft_type: str = ""
    """``VERA``, ``loha``, ... as ``peft.PeftType`` names it, in upper or lower case; without it, that of
    ``adapter_config``."""
    adapter_config: str | None = Field(default=None, json_schema_extra={"format": "path"})
    """``adapter_config.json`` of a saved adapter, or its folder, looked up from the working directory. Its fields are
    taken as if they stood here; fields that do stand here win. What it says of the shape of its model is left out."""
    task_type: str | None = None
    """As pasted from a configuration; the part decides it, and another one is refused."""

    @model_validator(mode="wrap")
    @classmethod
    def _of_the_library(cls, value: Any, handler: ModelWrapValidatorHandler[Settings]) -> Settings:
        if not isinstance(value, dict):
            return handler(value)
        given = _with_file(value)
        own = {name: given[name] for name in given if name in MethodSettings.model_fields or name in cls.model_fields}
        peft_type = given.get("peft_type", "")
        try:
            method = library.method(str(peft_type))
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
    method = library.method(str(content["peft_type"]))
    left_out = (*library.NOT_OF_THE_METHOD, *effects.SHAPE)
    fields = {name: value for name, value in content.items() if name not in left_out}
    return {"peft_type": method.peft_type, **_checked(method, fields)}


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    known = first.get("ctx", {}).get("known")
    if known is not None:
        hint = did_you_mean(place, known)
        return f"field {place!r} is unknown to the installed peft{hint}; remove it or install the peft that wrote it"
    return f"field {place!r}: {first['msg']}"


def _checked(method: library.LibraryMethod, fields: dict[str, Any]) -> dict[str, Any]:
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
    """Raise SpecError if this takes virtual tokens and the part none, has targets and no module to put them on, lacks
    what it is made of, or is for another task than the part's model."""
    method = library.method(settings.peft_type)
    if _MIXED in method.fields and not settings.fields().get(_MIXED):
        raise SpecError(
            f"{settings.peft_type} mixes LoRA adapters that were trained before; "
            f"name them: {_MIXED}: {{one: FOLDER, ...}}"
        )
    if method.takes_prompts:
        targets.check_prompts(method.peft_type, settings, part)
    elif settings.targets and part.name in settings.targets and "target_modules" not in method.fields:
        raise SpecError(f"{settings.peft_type} has no target modules; remove `targets`")
    known = part.task_type or part.model_task_type
    if settings.task_type and known and settings.task_type != known:
        raise SpecError(f"task_type is {settings.task_type}, and the model's is {known}; remove task_type")


def config(settings: Settings, part: PartFacts, module: torch.nn.Module) -> PeftConfig:
    """The library's configuration for this part.

    Raises SpecError for a field that names nothing or has no effect, and what the library raises for values that it
    refuses.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    method = library.method(settings.peft_type)
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.peft_type)]
    if settings.task_type and not (part.task_type or part.model_task_type):
        raise SpecError(f"task_type is {settings.task_type}, and this model has none in the library; remove task_type")
    fields = default_targets.fields(method, settings, settings.fields(), part, module)
    if isinstance(names := fields.get("modules_to_save"), list):
        targets.saved_modules(names, part, module)
    fields = effects.resolve(method.peft_type, fields, settings.fields(), part, module)
    fields = {name: targets.as_library_class(config_class, name, value) for name, value in fields.items()}
    make = partial(config_class, task_type=targets.task_type(part))
    if any(fields.get(name) is not None for name in effects.SHAPE if name in method.fields):
        effects.check_shape(fields, vars(_library_shape(make, fields, module)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made: PeftConfig = make(**fields)
    _refuse_ignored(settings, [str(warning.message) for warning in told])
    return made


def source(settings: Settings, part: PartFacts, module: torch.nn.Module | None = None) -> str:
    """Whose default the target modules are, in a few words; empty if the spec names them or the method has none."""
    return default_targets.source(library.method(settings.peft_type), settings, settings.fields(), part, module)


def _library_shape(make: Callable[..., PeftConfig], fields: dict[str, Any], module: torch.nn.Module) -> PeftConfig:
    """A configuration with the shape of the model as the library computes it."""
    from peft.utils.other import _prepare_prompt_learning_config

    own = {name: value for name, value in fields.items() if name not in effects.SHAPE}
    blank = make(**own)
    blank.num_transformer_submodules = 2 if blank.task_type == "SEQ_2_SEQ_LM" else 1  # type: ignore[attr-defined]
    made: PeftConfig = _prepare_prompt_learning_config(blank, module.config)  # type: ignore[no-untyped-call]
    return made


def _refuse_ignored(settings: Settings, told: list[str]) -> None:
    """Raise SpecError for a field that the library warns it will not read."""
    for name in settings.fields():
        for message in told:
            if f"`{name}" in message and _IGNORED.search(message):
                raise SpecError(f"{name} would have no effect; the library says: {message}")


def finish(settings: Settings, wrapper: PeftModel) -> None:
    """Tell an adapter that several tasks would share (Poly, multi-task prompts) of the only one that a cell has.

    Raises SpecError for an initialisation that wants a pass over data: without it, it is the usual one.
    """
    if settings.fields().get("init_lora_weights") == "eva":
        raise SpecError("init_lora_weights: eva wants a pass over data before training, which is not made; remove it")
    if not any(name in library.method(settings.peft_type).fields for name in _TASK_COUNTS):
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

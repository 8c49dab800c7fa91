"""``python -m bench.library_facts FILE``: write what the installed peft and transformers offer, as JSON.

``bench.libraries`` runs it once per installed version: importing the two takes seconds and torch, which a command that
only checks a spec must not pay for.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from peft import mapping
from peft.utils import PeftType, constants
from transformers import CONFIG_MAPPING
from transformers.models.auto import modeling_auto

_LAYER = re.compile(r"(Linear|Embedding|Conv[123]d|MultiheadAttention|LayerNorm)$")


def main() -> None:
    """Write one JSON object to the file that the command line names."""
    Path(sys.argv[1]).write_text(json.dumps({"peft": _peft(), "transformers": _transformers()}), encoding="utf-8")


def _peft() -> dict[str, Any]:
    configs = {PeftType(kind).value: config for kind, config in mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    tuners = {PeftType(kind).value: tuner for kind, tuner in mapping.PEFT_TYPE_TO_TUNER_MAPPING.items()}
    tables = {n: _keyed(t) for n, t in vars(constants).items() if n.startswith("TRANSFORMERS_MODELS_TO_")}
    return {
        "types": {name: _method(config, tuners.get(name)) for name, config in sorted(configs.items())},
        "default_modules": tables,
    }


def _keyed(table: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): sorted(v) if isinstance(v, set) else v for key, v in table.items() if not callable(v)}


def _method(config: type[Any], tuner: type[Any] | None) -> dict[str, Any]:
    bases = [base.__name__ for base in reversed(config.__mro__) if base.__module__.startswith("peft.")]
    return {
        "config_class": config.__name__,
        "takes_prompts": "PromptLearningConfig" in bases,
        "fields": _fields(config),
        "layers": _layers(config),
        "summary": _summary(tuner),
    }


def _fields(config: type[Any]) -> list[dict[str, Any]]:
    hints = typing.get_type_hints(config)
    return [
        {"name": field.name, "type": _type(hints[field.name]), **_default(field)}
        for field in dataclasses.fields(config)
        if field.init
    ]


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """``{"default": value}``; ``{"required": true}`` without one, ``{}`` for one that is no JSON."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return {"required": True}
    else:
        value = field.default.value if isinstance(field.default, enum.Enum) else field.default
    try:
        return {"default": json.loads(json.dumps(value))}
    except TypeError:
        return {}


def _type(hint: Any) -> Any:
    """A type as JSON: its name, or ``[name, *arguments]``; ``any`` for what is neither plain nor of the library."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "none"
    if origin is typing.Literal:
        # "pissa_niter_[number of iters]" stands for many words.
        return "str" if any("[" in str(word) for word in arguments) else ["literal", *arguments]
    if origin in (typing.Union, types.UnionType):
        return ["union", *map(_type, arguments)]
    if isinstance(origin, type):
        name = {"Sequence": "sequence"}.get(origin.__name__, origin.__name__)
        return [name, *("..." if a is Ellipsis else _type(a) for a in arguments)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return ["literal", *(member.value for member in hint)]
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return ["model", hint.__name__, _fields(hint)]
    return hint.__name__ if hint in (str, int, float, bool, list, dict, tuple, set) else "any"


def _layers(config: type[Any]) -> list[str]:
    """Kinds of layers that the method has an adapter for, by the names of its classes."""
    package = config.__module__.rpartition(".")[0]
    module = sys.modules.get(f"{package}.layer")
    source = inspect.getsource(module) if module else ""
    kinds = [kind[1] for name in re.findall(r"^class (\w+)", source, re.MULTILINE) if (kind := _LAYER.search(name))]
    return list(dict.fromkeys(kinds))


def _summary(tuner: type[Any] | None) -> str:
    """First sentence of the docstring of a method's model class, not of a class it inherits from."""
    first = " ".join((vars(tuner).get("__doc__") or "").split("\n\n")[0].split()) if tuner else ""
    return re.split(r"(?<=[^.][^.]\.) ", inspect.cleandoc(first))[0]


def _transformers() -> dict[str, Any]:
    lists = {}
    for name, names in vars(modeling_auto).items():
        if found := re.fullmatch(r"MODEL_FOR_(\w+)_MAPPING_NAMES", name):
            lists[found[1]] = {key: own if isinstance(own, str) else "" for key, own in names.items()}
    return {"model_types": sorted(CONFIG_MAPPING.keys()), "classes": lists}


if __name__ == "__main__":
    main()

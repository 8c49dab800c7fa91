"""What the installed ``peft`` offers: its types, their fields and default target modules.

Nothing here lists a type or a field, so a new release of the library needs no change.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, create_model

from bench import libraries
from bench.errors import SpecError
from bench.registry import did_you_mean

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "required"})()
"""Default of a field that has none."""
COMPUTED: Any = type("Computed", (), {"__repr__": lambda _: "computed"})()
"""Default that is no JSON value."""
NOT_OF_THE_METHOD = frozenset(
    ("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode")
)
"""Fields that every configuration has and that say nothing about the method: what it was saved with, or, for the task
type, what the part decides."""
_TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "set": set,
    "sequence": list, "none": None, "any": Any, "...": ...,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryField:
    """A field of a configuration class."""

    annotation: Any
    """As pydantic checks it; ``Any`` where the library names a type that is not known here."""
    default: Any
    """JSON value, ``REQUIRED`` or ``COMPUTED``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryMethod:
    """A type of the library."""

    peft_type: str
    """As ``peft.PeftType`` spells it: upper case."""
    config_class: str
    fields: dict[str, LibraryField]
    """All of the dataclass, inherited ones first."""
    takes_prompts: bool
    """Whether it puts virtual tokens in front of a text model's input or keys."""
    layers: tuple[str, ...]
    """Kinds of layers that it has an adapter for, e.g. ``Linear``, ``Conv2d``; empty for one that replaces no layer."""
    summary: str
    """The first sentence that the library says of it; empty if it says nothing."""
    settings: type[BaseModel]
    """Checks the fields that a spec may set."""

    @property
    def own_fields(self) -> dict[str, LibraryField]:
        """The fields that a spec may set."""
        return {name: field for name, field in self.fields.items() if name not in NOT_OF_THE_METHOD}


def types() -> tuple[str, ...]:
    """All types of the installed library, upper case, sorted. Raises SpecError if it is not installed."""
    return tuple(libraries.facts()["peft"]["types"])


@cache
def method(peft_type: str) -> LibraryMethod:
    """A type by its name in upper or lower case. Raises SpecError, with the nearest name, if there is none."""
    name = peft_type.upper()
    if name not in types():
        raise SpecError(f"{peft_type!r} is no type of the installed peft{did_you_mean(name, types())}")
    facts = libraries.facts()["peft"]["types"][name]
    fields = _fields(facts["fields"])
    return LibraryMethod(
        peft_type=name,
        config_class=facts["config_class"],
        fields=fields,
        takes_prompts=facts["takes_prompts"],
        layers=tuple(facts["layers"]),
        summary=facts["summary"],
        settings=_model(facts["config_class"], {n: f for n, f in fields.items() if n not in NOT_OF_THE_METHOD}),
    )


def default_modules(peft_type: str, model_type: str | None, field: str = "target_modules") -> list[str] | str | None:
    """What the library puts a method on by default in models of this ``model_type``: module names, or one regular
    expression. Null where it knows none. ``field`` is ``target_modules`` or ``feedforward_modules``."""
    table = f"TRANSFORMERS_MODELS_TO_{peft_type.upper().replace('_', '')}_{field.upper()}_MAPPING"
    modules: list[str] | str | None = libraries.facts()["peft"]["default_modules"].get(table, {}).get(str(model_type))
    return modules


def _fields(facts: list[dict[str, Any]]) -> dict[str, LibraryField]:
    fields = {}
    for each in facts:
        default = REQUIRED if each.get("required") else each.get("default", COMPUTED)
        annotation = _annotation(each["type"])
        # The library annotates some fields without None and gives them None.
        fields[each["name"]] = LibraryField(
            annotation=Union[annotation, None] if default is None else annotation,  # noqa: UP007
            default=default,
        )
    return fields


def _annotation(facts: Any) -> Any:
    """A type that pydantic can check, from its form in ``bench.library_facts``."""
    if isinstance(facts, str):
        return _TYPES[facts]
    name, *arguments = facts
    if name == "literal":
        return Literal[tuple(arguments)]
    if name == "model":
        return _model(arguments[0], _fields(arguments[1]))
    options = tuple(_annotation(argument) for argument in arguments)
    return Union[options] if name == "union" else _TYPES.get(name, Any)[options]  # noqa: UP007


def _model(name: str, fields: dict[str, LibraryField]) -> type[BaseModel]:
    given: dict[str, Any] = {
        key: (own.annotation, ... if own.default is REQUIRED else None if own.default is COMPUTED else own.default)
        for key, own in fields.items()
    }
    rules = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)
    made: type[BaseModel] = create_model(name, __config__=rules, **given)
    return made

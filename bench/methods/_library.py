"""What the installed ``peft`` offers, read from its sources without importing it: importing takes seconds and torch.

A type is what a ``register_peft_method`` call names; its fields are those of the dataclass of its configuration, base
classes included. Nothing here lists a type or a field, so a new release of the library needs no change.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, create_model

from bench.errors import SpecError
from bench.registry import did_you_mean

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "required"})()
"""Default of a field that has none."""
COMPUTED: Any = type("Computed", (), {"__repr__": lambda _: "computed"})()
"""Default that is no constant."""
NOT_OF_THE_METHOD = frozenset(
    ("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode")
)
"""Fields that every configuration has and that say nothing about the method: what it was saved with, or, for the task
type, what the part decides."""
_PLAIN = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "set": set}
_CONTAINERS: dict[str, Any] = {"List": list, "Dict": dict, "Tuple": tuple, "Set": set, "Sequence": list} | {
    name: _PLAIN[name] for name in ("list", "dict", "tuple", "set")
}
_LAYER = re.compile(r"(Linear|Embedding|Conv[123]d|MultiheadAttention|LayerNorm)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryField:
    """A field of a configuration class."""

    name: str
    annotation: Any
    """As pydantic checks it; ``Any`` where the library names a type that is not known here."""
    default: Any
    """JSON value, ``REQUIRED`` or ``COMPUTED``."""
    help: str
    """The library's own words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryMethod:
    """A type of the library."""

    peft_type: str
    """As ``peft.PeftType`` spells it: upper case."""
    config_class: str
    fields: dict[str, LibraryField]
    """All of the dataclass, inherited ones first."""
    bases: tuple[str, ...]
    """Names of all base classes found in the library."""
    layers: tuple[str, ...]
    """Kinds of layers that it has an adapter for, e.g. ``Linear``, ``Conv2d``; empty for one that replaces no layer."""
    settings: type[BaseModel]
    """Checks the fields that a spec may set."""

    @property
    def takes_prompts(self) -> bool:
        """Whether it puts virtual tokens in front of a text model's input or keys."""
        return "PromptLearningConfig" in self.bases

    @property
    def own_fields(self) -> dict[str, LibraryField]:
        """The fields that a spec may set."""
        return {name: own for name, own in self.fields.items() if name not in NOT_OF_THE_METHOD}


@dataclass(frozen=True)
class _Module:
    """A source file of the library."""

    path: Path

    @cached_property
    def body(self) -> list[ast.stmt]:
        return ast.parse(self.path.read_text(encoding="utf-8")).body

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def aliases(self) -> dict[str, ast.expr]:
        """Names given to types: ``Variant = Literal[...]``."""
        lines = [line for line in self.body if isinstance(line, ast.Assign) and isinstance(line.value, ast.Subscript)]
        return {_name(line.targets[0]): line.value for line in lines}

    def find(self, name: str) -> tuple[_Module, ast.ClassDef] | None:
        """The class of that name, here or where it is imported from; None outside the library."""
        if name in self.classes:
            return self, self.classes[name]
        for node in self.body:
            if isinstance(node, ast.ImportFrom) and (alias := next((a for a in node.names if a.name == name), None)):
                source = self._source(node)
                return _module(source).find(alias.name) if source else None
        return None

    def _source(self, node: ast.ImportFrom) -> Path | None:
        steps = (node.module or "").split(".") if node.module else []
        if node.level:
            folder = self.path.parents[node.level - 1]
        elif steps[:1] == [_folder().name]:
            folder, steps = _folder(), steps[1:]
        else:
            return None
        place = folder.joinpath(*steps)
        candidates = (place / "__init__.py", place.with_suffix(".py"))
        return next((path for path in candidates if path.is_file()), None)


@cache
def _module(path: Path) -> _Module:
    return _Module(path)


@cache
def _folder() -> Path:
    found = importlib.util.find_spec("peft")  # locates it, without running it
    if found is None or not found.submodule_search_locations:
        raise SpecError("a method with peft_type needs the package peft: pip install peft")
    return Path(found.submodule_search_locations[0])


@cache
def _registered() -> dict[str, tuple[Path, str, str]]:
    """Type -> file that registers it, and the names of the classes of its configuration and its model."""
    found: dict[str, tuple[Path, str, str]] = {}
    for path in sorted((_folder() / "tuners").rglob("__init__.py")):
        text = path.read_text(encoding="utf-8")
        if "register_peft_method(" not in text:
            continue
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            name, config = given.get("name"), given.get("config_cls")
            if isinstance(name, ast.Constant) and isinstance(config, ast.Name):
                model = given.get("model_cls")
                found[str(name.value).upper()] = (path, config.id, model.id if isinstance(model, ast.Name) else "")
    return found


def types() -> tuple[str, ...]:
    """All types of the installed library, upper case, sorted. Raises SpecError if it is not installed."""
    return tuple(sorted(_registered()))


@cache
def method(peft_type: str) -> LibraryMethod:
    """A type by its name in upper or lower case. Raises SpecError, with the nearest name, if there is none."""
    name = peft_type.upper()
    if name not in _registered():
        raise SpecError(f"{peft_type!r} is no type of the installed peft{did_you_mean(name, types())}")
    path, config_class, _ = _registered()[name]
    found = _module(path).find(config_class)
    assert found is not None, f"{path} registers {config_class}, which is nowhere to be found"
    ancestry = list(_ancestry(*found))
    fields = _fields(ancestry)
    return LibraryMethod(
        peft_type=name,
        config_class=config_class,
        fields=fields,
        bases=tuple(node.name for _, node in ancestry[:-1]),
        layers=_layers(path.parent),
        settings=_model(config_class, {key: own for key, own in fields.items() if key not in NOT_OF_THE_METHOD}),
    )


def of_architecture(peft_type: str, model_type: str | None, field: str = "target_modules") -> list[str] | str | None:
    """What the library puts a method on by default in models of this ``model_type``: module names, or one regular
    expression. Null where it knows none. ``field`` is ``target_modules`` or ``feedforward_modules``."""
    table = f"TRANSFORMERS_MODELS_TO_{peft_type.upper().replace('_', '')}_{field.upper()}_MAPPING"
    found: list[str] | str | None = _tables().get(table, {}).get(model_type)
    return found


@cache
def _tables() -> dict[str, dict[Any, Any]]:
    """The dictionaries among the library's constants: literals, copies of each other, and entries put into them."""
    tables: dict[str, dict[Any, Any]] = {}
    for line in _module(_folder() / "utils" / "constants.py").body:
        if not isinstance(line, ast.Assign):
            continue
        target, value = line.targets[0], line.value
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            with suppress(ValueError):
                tables[target.id] = ast.literal_eval(value)
        elif isinstance(target, ast.Name) and isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr == "copy" and (source := _name(value.func.value)) in tables:
                tables[target.id] = dict(tables[source])
        elif isinstance(target, ast.Subscript) and _name(target.value) in tables:
            tables[_name(target.value)][ast.literal_eval(target.slice)] = ast.literal_eval(value)
    return tables


def summary(peft_type: str) -> str:
    """The first sentence that the library says of a type's model; empty if it says nothing."""
    path, _, model = _registered()[peft_type.upper()]
    found = _module(path).find(model) if model else None
    told = " ".join((ast.get_docstring(found[1]) or "").split("\n\n")[0].split()) if found else ""
    return re.split(r"(?<=[^.][^.]\.) ", told)[0]


def _ancestry(module: _Module, node: ast.ClassDef) -> Iterator[tuple[_Module, ast.ClassDef]]:
    """Base classes of the library first, as a dataclass collects its fields; the class itself last."""
    for base in reversed(node.bases):
        found = module.find(base.id) if isinstance(base, ast.Name) else None
        if found:
            yield from _ancestry(*found)
    yield module, node


def _fields(ancestry: list[tuple[_Module, ast.ClassDef]]) -> dict[str, LibraryField]:
    fields: dict[str, LibraryField] = {}
    for module, node in ancestry:
        for line in node.body if _is_dataclass(node) else ():
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                made = _field(module, line.target.id, line)
                if made is not None:
                    fields[made.name] = made
    return fields


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(_name(d.func if isinstance(d, ast.Call) else d) == "dataclass" for d in node.decorator_list)


def _field(module: _Module, name: str, line: ast.AnnAssign) -> LibraryField | None:
    annotation, default, told = _annotation(line.annotation, module), REQUIRED, ""
    value = line.value
    if isinstance(value, ast.Call) and _name(value.func) == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if "init" in given and _constant(given["init"], module) is False:
            return None
        if "default" in given:
            default = _constant(given["default"], module)
        elif "default_factory" in given:
            default = {"dict": {}, "list": []}.get(_name(given["default_factory"]), COMPUTED)
        metadata = _constant(given["metadata"], module) if "metadata" in given else {}
        told = metadata.get("help", "") if isinstance(metadata, dict) else ""
        told = "".join(told)  # the library has a tuple of texts here and there
    elif value is not None:
        default = _constant(value, module)
    return LibraryField(
        name=name,
        annotation=Union[annotation, None] if default is None else annotation,  # noqa: UP007
        default=default,
        help=told,
    )


def _name(node: ast.expr) -> str:
    """``Optional`` of ``typing.Optional``."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _constant(node: ast.expr, module: _Module) -> Any:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        members = _members(node.value.id, module)
        return members.get(node.attr, COMPUTED)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def _members(name: str, module: _Module) -> dict[str, str]:
    """Members of an enumeration of texts; none if it is no such class of the library."""
    found = module.find(name)
    if found is None or not any("Enum" in _name(base) for base in found[1].bases):
        return {}
    lines = [line for line in found[1].body if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)]
    return {_name(line.targets[0]): str(line.value.value) for line in lines if isinstance(line.value, ast.Constant)}


def _annotation(node: ast.expr, module: _Module) -> Any:
    """A type that pydantic can check, made of plain types, the library's enumerations and its dataclasses alone."""
    if isinstance(node, ast.Constant):
        return None if node.value is None else _annotation(ast.parse(str(node.value), mode="eval").body, module)
    if isinstance(node, ast.BinOp):
        return Union[_annotation(node.left, module), _annotation(node.right, module)]  # noqa: UP007
    if isinstance(node, ast.Subscript):
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        name = _name(node.value)
        if name == "Literal":
            words = tuple(_constant(option, module) for option in inner)
            patterns = any("[" in str(word) for word in words)  # "pissa_niter_[number of iters]" stands for many
            return str if patterns else Literal[words]
        options = tuple(_annotation(option, module) for option in inner)
        if name == "Optional":
            return Union[(*options, None)]
        if name == "Union":
            return Union[options]  # noqa: UP007
        return _CONTAINERS[name][options] if name in _CONTAINERS else Any
    name = _name(node)
    return _PLAIN.get(name) or _CONTAINERS.get(name) or _class(name, module)


def _class(name: str, module: _Module) -> Any:
    if members := _members(name, module):
        return Literal[tuple(members.values())]
    if name in module.aliases:
        return _annotation(module.aliases[name], module)
    found = module.find(name)
    if found is None or not _is_dataclass(found[1]):
        return Any
    return _model(name, _fields(list(_ancestry(*found))))


def _model(name: str, fields: dict[str, LibraryField]) -> type[BaseModel]:
    given: dict[str, Any] = {
        key: (own.annotation, ... if own.default is REQUIRED else None if own.default is COMPUTED else own.default)
        for key, own in fields.items()
    }
    rules = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)
    made: type[BaseModel] = create_model(name, __config__=rules, **given)
    return made


def _layers(folder: Path) -> tuple[str, ...]:
    file = folder / "layer.py"
    kinds = re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else []
    return tuple(dict.fromkeys(kind[1] for name in kinds if (kind := _LAYER.search(name))))

"""pydantic's validation errors in terms of the spec: location, problem and remedy."""

from __future__ import annotations

import difflib
import json
import re
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.errors import BenchError
from bench.registry import did_you_mean
from bench.spec.diagnostics import Diagnostics, dotted, quoted
from bench.spec.yaml_tree import PLUGIN_KEYS, Node, Path

Model = TypeVar("Model", bound=BaseModel)

EXPECTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "list_type": "must be a list, e.g. [a, b]",
    "tuple_type": "must be a list, e.g. [a, b]",
    "dict_type": "must be a mapping (`key: value` lines)",
    "model_type": "must be a mapping (`key: value` lines)",
    "model_attributes_type": "must be a mapping (`key: value` lines)",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
    "string_pattern_mismatch": "must match {pattern}",
}
"""pydantic's type of error -> message; other errors keep pydantic's message."""


MAX_UNKNOWN = 30
"""Unknown fields of a mapping that are reported one by one; more than fit on a screen are not typing errors."""
MAX_ERRORS = 300
"""Errors that are reported one by one."""


def validate(model: type[Model], tree: Node, diagnostics: Diagnostics) -> Model | None:
    """``tree`` as a ``model``, or None with every problem added to ``diagnostics``.

    Strict as for JSON: ``"4"`` and ``true`` are not numbers, while a list may become a tuple and a text a path.
    """
    try:
        return model.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        merged: dict[tuple[str, str], list[tuple[str, str]]] = {}
        errors, many = _few_unknown(error.errors(include_url=False))
        for details in _without_misspelt(errors[:MAX_ERRORS]):
            location, path, expected, found = _explain(model, tree, details)
            merged.setdefault((location, path), []).append((expected, found))
        for (location, path), branches in merged.items():  # several: those of a plain union
            expected = " or ".join(dict.fromkeys(expected for expected, _ in branches))
            diagnostics.add(location, path, expected + branches[-1][1])
        for details in errors[MAX_ERRORS : MAX_ERRORS + 1]:
            location, path, _, _ = _explain(model, tree, details)
            diagnostics.add(
                location, path, f"is wrong, too, and so are {len(errors) - MAX_ERRORS - 1:,} further values"
            )
        for details, count in many:
            location, path, _, _ = _explain(model, tree, details)
            diagnostics.add(
                location, path, f"unknown field, and so are {count:,} further ones of its mapping; remove them"
            )
    except BenchError as error:  # raised by a plugin's own validator
        diagnostics.add(tree.location, "", str(error))
    return None


def _few_unknown(errors: list[ErrorDetails]) -> tuple[list[ErrorDetails], list[tuple[ErrorDetails, int]]]:
    """Errors with at most ``MAX_UNKNOWN`` unknown fields per mapping; the next such field, and how many follow it."""
    kept: list[ErrorDetails] = []
    found: dict[tuple[int | str, ...], int] = {}
    next_one: dict[tuple[int | str, ...], ErrorDetails] = {}
    for details in errors:
        where = details["loc"][:-1]
        if details["type"] == "extra_forbidden":
            found[where] = found.get(where, 0) + 1
        if details["type"] != "extra_forbidden" or found[where] <= MAX_UNKNOWN:
            kept.append(details)
        else:
            next_one.setdefault(where, details)
    return kept, [(details, found[where] - MAX_UNKNOWN - 1) for where, details in next_one.items()]


def _without_misspelt(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Errors, without the "missing" of a field whose misspelt name is in the same mapping."""
    extra = [details["loc"] for details in errors if details["type"] == "extra_forbidden"]

    def misspelt(loc: tuple[int | str, ...]) -> bool:
        words = [str(other[-1]) for other in extra if other[:-1] == loc[:-1]]
        return bool(difflib.get_close_matches(str(loc[-1]), words, n=1, cutoff=0.5))

    return [details for details in errors if details["type"] != "missing" or not misspelt(details["loc"])]


def _explain(model: type[BaseModel], tree: Node, details: ErrorDetails) -> tuple[str, str, str, str]:
    """Location, dotted path, expected value and actual value of an error."""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    path, known = _path_of(model, details["loc"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = str(context["discriminator"]).strip("'")
        path = (*path, key)
        options = _options(str(context.get("expected_tags", ""))) or _tags(model, path[:-1])
        node = tree.get(*path)
        if node is None:
            return _nearest(tree, path), dotted(path), f"is missing; add `{key}: ...`", did_you_mean("", options)
        return (
            node.location,
            dotted(path),
            f"{quoted(node.plain())} is not known",
            did_you_mean(str(node.value), options),
        )
    node = tree.get(*path)
    if kind == "missing":
        return _nearest(tree, path), dotted(path), f"is missing; add `{path[-1]}: ...`", ""
    if kind in ("extra_forbidden", "unknown_field"):  # the latter from a plugin that looks its fields up
        known = context.get("known", known)
        location = node.key_location if node else _nearest(tree, path)
        return location, dotted(path), "unknown field", f"{did_you_mean(str(path[-1]), known)}; correct or remove it"
    location = node.location if node else _nearest(tree, path)
    if kind == "literal_error":
        hint = did_you_mean(str(value), _options(str(context["expected"])))
        return location, dotted(path), f"{quoted(value)} is not known", hint
    if kind == "value_error":
        return location, dotted(path), str(context["error"]), ""
    fallback = details["msg"].replace("Input should", "must").replace("String should", "must")
    expected = EXPECTED[kind].format(**context) if kind in EXPECTED else fallback
    return location, dotted(path), expected, f", not {quoted(value)}{_quotes_remedy(kind, value)}"


def _quotes_remedy(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", value)
    return "; remove the quotes" if number and kind in ("int_type", "float_type") else ""


def _nearest(tree: Node, path: Path) -> str:
    """Location of the key of the innermost existing mapping on the way to ``path``."""
    for length in range(len(path), 0, -1):
        node = tree.get(*path[:length])
        if node is not None:
            return node.key_location
    return tree.location


def _options(expected: str) -> list[str]:
    return re.findall(r"'([^']+)'", expected)


def _path_of(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Path, list[str]]:
    """pydantic's ``loc`` without the tags of unions, and the fields known at its last step."""
    here: list[Any] = [model]
    path: list[int | str] = []
    known: list[str] = []
    for step in loc:
        models = [c for c in here if isinstance(c, type) and issubclass(c, BaseModel)]
        tagged = [m for m in models if step in _tags_of(m)] if len(models) > 1 else []
        if tagged:
            here = list(tagged)
            continue
        known = [name for m in models for name in m.model_fields]
        below = [option for c in here for option in _below(c, step)]
        if not below and not models:
            break  # a branch of a plain union, such as ``list[str]``
        path.append(step)
        here = below
    return tuple(path), known


def _below(annotation: Any, step: int | str) -> list[Any]:
    """Types under ``step`` of a value of this type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return _flat(field.annotation) if field else []
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return _flat(arguments[1])
    if get_origin(annotation) in (list, tuple) and isinstance(step, int):
        return _flat(arguments[0])
    return []


def _flat(annotation: Any) -> list[Any]:
    """The options of a union, without ``Annotated``."""
    if get_origin(annotation) is Annotated:
        return _flat(get_args(annotation)[0])
    if get_origin(annotation) in (dict, list, tuple, Literal) or not get_args(annotation):
        return [annotation]
    return [option for argument in get_args(annotation) for option in _flat(argument)]


def _tags_of(model: type[BaseModel]) -> tuple[Any, ...]:
    for key in PLUGIN_KEYS:
        field = model.model_fields.get(key)
        if field is not None and get_origin(field.annotation) is Literal:
            return get_args(field.annotation)
    return ()


def _tags(model: type[BaseModel], path: Path) -> list[str]:
    """All tags of the union at ``path``."""
    here: list[Any] = [model]
    for step in path:
        here = [option for c in here for option in _below(c, step)]
    return [tag for m in here if isinstance(m, type) and issubclass(m, BaseModel) for tag in _tags_of(m)]

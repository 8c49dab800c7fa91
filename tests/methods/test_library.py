"""What the child process read of peft is what peft's classes say."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import itertools
import json
import os
import tempfile
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, constants
from pydantic import BaseModel

from bench import libraries
from bench.errors import SpecError
from bench.libraries import LibraryError
from bench.methods.common import library

TYPES = sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


def test_all_types_are_found() -> None:
    assert list(library.types()) == TYPES


@pytest.mark.parametrize("name", TYPES)
def test_fields_types_and_defaults_are_those_of_the_class(name: str) -> None:
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name)]
    method = library.method(name)
    real = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    assert list(method.fields) == list(real)
    assert method.config_class == config_class.__name__
    told = inspect.getattr_static(config_class, "is_prompt_learning")
    assert method.takes_prompts == (told if isinstance(told, bool) else told.__get__(object()))
    hints = typing.get_type_hints(config_class)
    for field, own in method.fields.items():
        assert own.default == library.COMPUTED or own.default == default(real[field]), field
        if own.default is None:
            assert type(None) in typing.get_args(own.annotation), field
        assert shape(own.annotation) - {"None"} == shape(hints[field]) - {"None"}, field


def default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        return library.REQUIRED
    return field.default.value if isinstance(field.default, enum.Enum) else field.default


def shape(annotation: Any) -> set[str]:
    """The plain types, words and classes that an annotation is made of."""
    if annotation is None or annotation is type(None):
        return {"None"}
    if typing.get_origin(annotation) is typing.Literal:
        words = {str(word) for word in typing.get_args(annotation)}
        return {"str"} if any("[" in word for word in words) else words
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {str(member.value) for member in annotation}
    if typing.get_origin(annotation) is None:
        return {annotation.__name__}
    origin = typing.get_origin(annotation)
    own = {origin.__name__} if isinstance(origin, type) and origin is not types.UnionType else set()
    return own | {word for part in typing.get_args(annotation) for word in shape(part)}


def test_few_defaults_are_left_open() -> None:
    """A reader that gave up on everything would pass the test above."""
    fields = [own for name in TYPES for own in library.method(name).fields.values()]
    assert sum(own.default is library.COMPUTED for own in fields) <= 0.01 * len(fields)
    assert sum(own.annotation is Any for own in fields) == 0


def test_nested_configurations_are_checked_too() -> None:
    eva = library.method("lora").fields["eva_config"].annotation
    (nested,) = [option for option in typing.get_args(eva) if option is not type(None)]
    assert issubclass(nested, BaseModel)
    assert "rho" in nested.model_fields


def test_layers_are_those_the_library_has_adapters_for() -> None:
    assert {"Linear", "Conv2d", "Embedding", "MultiheadAttention"} <= set(library.method("LORA").layers)
    assert library.method("VERA").layers == ("Linear",)
    assert library.method("PREFIX_TUNING").layers == ()


def test_default_targets_by_architecture_are_the_librarys() -> None:
    for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items():
        for architecture, targets in getattr(tuner, "target_module_mapping", {}).items():
            assert library.default_modules(kind.value, architecture) == targets, (kind, architecture)
    tables = (
        ("target_modules", constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING),
        ("feedforward_modules", constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING),
    )
    for field, table in tables:
        assert {key: library.default_modules("IA3", key, field) for key in table} == table
    assert library.default_modules("LORA", "no_such") is None is library.default_modules("PREFIX_TUNING", "llama")


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'VERA'"):
        library.method("verra")


def test_a_library_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the user's cache cannot be written, and again where what was kept is torn."""
    calls = itertools.count(1)
    monkeypatch.setattr(libraries, "_read", lambda: json.dumps({"calls": next(calls)}).encode())
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fresh = libraries.facts.__wrapped__
    assert [fresh(), fresh()] == [{"calls": 1}, {"calls": 1}]
    (kept,) = (tmp_path / "cache").rglob("libraries/*.json")
    kept.write_text("{torn")
    assert fresh() == {"calls": 2}
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    assert [fresh(), fresh()] == [{"calls": 3}, {"calls": 3}]
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/none")
    assert [fresh(), fresh()] == [{"calls": 4}, {"calls": 5}]


def test_another_users_folder_of_temporary_files_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_read", lambda: b'{"mine": true}')
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    planted = tmp_path / f"peft-freeze-bench-{os.getuid() + 1}"
    planted.mkdir()
    (planted / f"{libraries._key()}.json").write_text('{"mine": false}')
    me = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: me)
    assert libraries.facts.__wrapped__() == {"mine": True}


def test_a_library_that_cannot_be_imported_is_an_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peft.py").write_text("raise ImportError('peft is broken here')")
    monkeypatch.setattr(
        libraries, "child_environ", lambda: {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    )
    with pytest.raises(LibraryError, match="peft is broken here; install them again"):
        libraries._read()

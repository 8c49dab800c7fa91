"""Plugins by kind and name: modules in the folder of their kind, and those of installed packages.

A plugin's name is its file's name. Kinds are the folders ``models``, ``methods``, ``datasets``, ``tasks``,
``executors`` and ``trackers``; another package registers a module under the entry point group ``bench.<kind>``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, overload

from bench.errors import SpecError

if TYPE_CHECKING:
    from bench.plugins.contracts import DataPlugin, MethodPlugin, ModelPlugin, TaskPlugin

SHARED = "common"
"""Package in a kind's folder with the code that its plugins share."""
Kind = Literal["models", "methods", "datasets", "tasks", "executors", "trackers"]


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Sorted names of all plugins of one kind."""
    package = importlib.import_module(f"bench.{kind}")
    built_in = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")} - {SHARED}
    return tuple(sorted(built_in | _installed(kind).names))


@cache
def _installed(kind: Kind) -> EntryPoints:
    return entry_points(group=f"bench.{kind}")  # reads the metadata of every installed package: once is enough


@overload
def load(kind: Literal["models"], name: str) -> ModelPlugin: ...
@overload
def load(kind: Literal["methods"], name: str) -> MethodPlugin: ...
@overload
def load(kind: Literal["datasets"], name: str) -> DataPlugin: ...
@overload
def load(kind: Literal["tasks"], name: str) -> TaskPlugin: ...
@overload
def load(kind: Kind, name: str) -> Any: ...
def load(kind: Kind, name: str) -> Any:
    """The plugin's module. Raises SpecError, with the nearest known name, if there is none."""
    # The contracts of executors and trackers are above this module, in bench.execution.contracts: hence Any.
    return _load(kind, name)


@cache
def _load(kind: Kind, name: str) -> ModuleType:
    if name not in names(kind):
        raise SpecError(f"unknown {kind} {name!r}{did_you_mean(name, names(kind))}")
    for entry in _installed(kind).select(name=name):
        module = entry.load()
        assert isinstance(module, ModuleType), f"entry point bench.{kind}:{name} must be a module"
        return module
    return importlib.import_module(f"bench.{kind}.{name}")


def did_you_mean(word: str, known: tuple[str, ...] | list[str]) -> str:
    """``; did you mean 'x'? (known: ...)``, to end an error with; of many known words the first 15."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = f", ... {len(known) - 15} more" if len(known) > 15 else ""
    return f"{hint} (known: {', '.join(known[:15])}{more})"

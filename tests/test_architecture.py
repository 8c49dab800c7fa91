"""The rules of the code base, as tests: sizes, light plugins, no plugin named in the core, contracts kept."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import pytest

from bench import registry
from bench.environment import PACKAGES
from bench.execution import contracts as execution
from bench.plugins import contracts

BENCH = Path(__file__).resolve().parents[1] / "bench"
SOURCES = sorted(BENCH.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
PLUGIN_FOLDERS = ("models", "methods", "datasets", "tasks", "trackers")
CONTRACTS = {
    "models": contracts.ModelPlugin,
    "methods": contracts.MethodPlugin,
    "datasets": contracts.DataPlugin,
    "tasks": contracts.TaskPlugin,
    "trackers": execution.TrackerPlugin,
}
PLUGINS = [(kind, name) for kind in CONTRACTS for name in registry.names(kind)]
HEAVY = (
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "timm",
    "datasets",
    "numpy",
    "pandas",
    "matplotlib",
    "PIL",
    "sklearn",
    "onnx",
    "tensorboard",
    "mlflow",
)


def test_files_have_at_most_400_lines_and_functions_75() -> None:
    long = [str(path) for path in SOURCES if len(path.read_text().splitlines()) > 400]
    long += [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 75
    ]
    assert not long


def test_no_import_leads_in_a_circle() -> None:
    """Neither between the modules of a package nor between packages, and not for types alone."""
    graph = grimp.build_graph("bench", exclude_type_checking_imports=False, cache_dir=None)
    circles = {name: graph.nominate_cycle_breakers(name) for name in graph.modules if graph.find_children(name)}
    assert {name: imports for name, imports in circles.items() if imports} == {}


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_plugin_keeps_its_contract(kind: registry.Kind, name: str) -> None:
    module = registry.load(kind, name)
    contract = CONTRACTS[kind]
    wanted = {key for key in vars(contract) if not key.startswith("_")} | set(contract.__annotations__)
    missing = sorted(key for key in wanted if not hasattr(module, key))
    assert not missing
    for key in wanted:
        declared = inspect.getattr_static(contract, key, None)
        if isinstance(declared, staticmethod):
            expected = list(inspect.signature(declared.__func__).parameters)
            assert list(inspect.signature(getattr(module, key)).parameters) == expected, key


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method_puts_an_adapter_on_or_selects(name: str) -> None:
    module: Any = registry.load("methods", name)
    (kind,) = [kind for kind in (contracts.AdapterPlugin, contracts.SelectivePlugin) if _offers(module, kind)]
    (declared,) = (value for value in vars(kind).values() if isinstance(value, staticmethod))
    own = getattr(module, declared.__name__)
    assert list(inspect.signature(own).parameters) == list(inspect.signature(declared.__func__).parameters)


def _offers(module: ModuleType, kind: type) -> bool:
    return all(hasattr(module, key) for key, value in vars(kind).items() if isinstance(value, staticmethod))


LIGHT = {
    "plugins": f"for kind in {PLUGIN_FOLDERS!r}:\n    for name in registry.names(kind): registry.load(kind, name)",
    "a check": "from bench.methods import lora; from bench.models import miss\n"
    "lora.check(lora.Settings(type='lora'), miss.PARTS['vit'])",
    "the catalogue of methods": "from bench.methods.common.catalogue import catalogue; catalogue()",
    "the environment": "from bench import environment; environment.describe(); environment.usable_gpus()",
    "the version": "from bench import commands; commands.version_text(as_json=False)",
}
"""What specs, lists and ``--help`` need: a heavy import there would slow them."""


@pytest.mark.parametrize("name", LIGHT)
def test_nothing_heavy_is_imported(name: str) -> None:
    code = f"import sys; from bench import registry\n{LIGHT[name]}\nprint(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_core_names_no_plugin() -> None:
    """No ``if name == "miss"``: a plugin's name as a string literal in the core is such a branch in the making."""
    names = {name for kind in CONTRACTS for name in registry.names(kind)}
    for path, tree in TREES.items():
        if path.relative_to(BENCH).parts[0] not in PLUGIN_FOLDERS:
            # libraries whose versions are recorded: a family has the name of its library
            libraries = set(PACKAGES) if path.name in ("environment.py", "versions.py") else set()
            literals = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not literals & names - libraries, path


MAP = (BENCH.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_map_names_every_room_once() -> None:
    """Each package and root module has its line, or stands in the line of another."""
    lines = [line.split()[0] for line in MAP.splitlines() if line.startswith("    bench/")]
    assert all((BENCH.parent / line).exists() for line in lines)
    beside = set(re.findall(r"\b(\w+\.py)\b", " ".join(x for x in MAP.splitlines() if x.startswith("    bench/"))))
    rooms = {f"bench/{path.name}/" for path in BENCH.iterdir() if (path / "__init__.py").is_file()}
    assert {line for line in lines if line.endswith("/")} == rooms
    assert {path.name for path in BENCH.glob("*.py")} - {"__init__.py"} <= beside
    assert len(lines) == len(set(lines))


def test_the_flow_of_the_map_is_that_of_the_code() -> None:
    flow = MAP[MAP.index("    run_bench.py specs/") : MAP.index("One line per package")]
    names = re.findall(r"\bbench(?:\.\w+)+", flow.replace("-m bench.worker", ""))
    assert len(names) > 10
    for name in names:
        assert pkgutil.resolve_name(name), name


def test_a_class_name_means_one_thing() -> None:
    """Outside plugins, whose ``Settings`` and kinds of weights have the same names in each."""
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        plugin = path.relative_to(BENCH).parts[0] in PLUGIN_FOLDERS
        for node in () if plugin else ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(BENCH)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}

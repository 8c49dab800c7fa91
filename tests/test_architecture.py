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

import pytest

from bench import registry
from bench.environment import PACKAGES
from bench.execution import contracts as execution
from bench.plugins import contracts

BENCH = Path(__file__).resolve().parents[1] / "bench"
SOURCES = sorted(BENCH.rglob("*.py"))
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(BENCH)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


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


def test_plugins_import_nothing_heavy() -> None:
    """Every plugin is loaded to validate a spec, so a heavy import there would slow ``--help``."""
    code = (
        "import sys; from bench import registry\n"
        f"for kind in {PLUGIN_FOLDERS!r}:\n"
        "    for name in registry.names(kind): registry.load(kind, name)\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def _core_files() -> list[Path]:
    return [path for path in SOURCES if path.relative_to(BENCH).parts[0] not in PLUGIN_FOLDERS]


@pytest.mark.parametrize("path", _core_files(), ids=lambda path: str(path.relative_to(BENCH)))
def test_the_core_names_no_plugin(path: Path) -> None:
    """No ``if name == "miss"``: a plugin's name as a string literal in the core is such a branch in the making."""
    names = {name for kind in CONTRACTS for name in registry.names(kind)}
    if path.name in ("environment.py", "versions.py"):
        names -= set(PACKAGES)  # libraries whose versions are recorded: a family has the name of its library
    tree = ast.parse(path.read_text())
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not literals & names


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

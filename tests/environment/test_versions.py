"""The bounds of the package are those that were tested; other versions are refused before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench import environment, versions
from bench.errors import LibraryMismatchError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The newest tested versions; a test changes some."""
    found = dict(versions.NEWEST)
    monkeypatch.setattr(versions, "version", lambda package: found[package])
    monkeypatch.delenv(versions.ALLOW_UNTESTED, raising=False)
    return found


def test_the_packages_bounds_are_the_tested_versions(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for package, oldest in versions.OLDEST.items():
        assert f"{package}>={oldest.removesuffix('.0')},<{versions.BELOW[package]}" in project["dependencies"]
    assert project["requires-python"] == f">={versions.PYTHON[0]},<3.{int(versions.PYTHON[-1].split('.')[1]) + 1}"


@pytest.mark.parametrize(
    ("package", "found"),
    [("torch", "2.13.0+cpu"), ("torch", "2.14.1+cu130"), ("transformers", "5.24.3"), ("timm", "1.0.29")],
)
def test_versions_between_the_tested_ones_run(installed: dict[str, str], package: str, found: str) -> None:
    installed[package] = found
    versions.check.__wrapped__()


@pytest.mark.parametrize(
    ("package", "found"),
    [("torch", "2.10.1"), ("torch", "2.15.0.dev20261101"), ("transformers", "5.25.0"), ("peft", "0.22.0")],
)
def test_other_versions_are_refused_by_name(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, package: str, found: str
) -> None:
    installed[package] = found
    with pytest.raises(LibraryMismatchError) as refused:
        versions.check.__wrapped__()
    tested = f"{package} {found}, tested from {versions.OLDEST[package]} to {versions.NEWEST[package]}"
    assert tested in str(refused.value)
    assert f'"{package}>={versions.OLDEST[package]},<{versions.BELOW[package]}"' in str(refused.value)
    monkeypatch.setenv(versions.ALLOW_UNTESTED, "1")
    versions.check.__wrapped__()


def test_records_and_command_line_say_what_was_tested(root: Path) -> None:
    described = environment.describe()
    assert described["tested_versions"] == versions.describe()
    call = [sys.executable, str(root / "run_bench.py"), "--version"]
    plain = subprocess.run(call, capture_output=True, text=True, check=True)
    oldest, newest = versions.OLDEST["torch"], versions.NEWEST["torch"]
    assert f"torch {described['versions']['torch']} (tested: {oldest} to {newest})" in plain.stdout
    shown = subprocess.run([*call, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["tested"] == versions.describe()

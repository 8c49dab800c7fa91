"""One method, model family, task and data set of somebody else's package, found through its entry points and run.

The package in tests/outside is put on the path as an installer would: its modules and the metadata that
``importlib.metadata`` reads. Nothing of it is known to this package.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

OUTSIDE = ROOT / "tests" / "outside"
SPEC = OUTSIDE / "counting.yaml"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the one of this test in it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(OUTSIDE / "counting", site / "counting", ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((OUTSIDE / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return site


def bench(site: Path | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``run_bench.py`` in a process of its own."""

    path = os.pathsep.join(filter(None, [str(site or ""), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "run_bench.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_nothing_of_it_is_known_without_the_package() -> None:
    done = bench(None, SPEC, "--list")
    assert done.returncode == 2
    for name in ("perceptron", "counting", "dots", "small_tensors"):
        assert re.search(rf"'{name}' is not known|no task '{name}'", done.stderr), done.stderr


def test_its_cells_train_evaluate_and_are_tabled(installed: Path, tmp_path: Path) -> None:
    done = bench(installed, SPEC, "--results", tmp_path / "results", "--reports", tmp_path / "reports", "--json")
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)["records"]
    assert [(record["label"], record["status"]) for record in records] == [("Small-T", "ok"), ("LoRA-T", "ok")]
    small, lora = records
    assert small["params"]["by_part"]["body"] == {"trainable": 64, "total": 64 * 257}, "the bias alone is small"
    assert lora["params"]["by_part"]["body"]["trainable"] == 4 * (256 + 64)
    for record in records:
        assert record["task"] == "counting"
        assert record["data_digest"] == "dots 1"
        assert record["loss_curve"][-1]["loss"] < 0.75 * record["loss_curve"][0]["loss"]
        score, prior = record["scores"]["within_one"], record["baselines"]["median"]["within_one"]
        assert score["correct"] / score["n"] > 0.9 > 0.7 > prior["correct"] / prior["n"]
        assert record["estimate"]["params"] == record["params"]
        assert record["estimate"]["adapter_bytes"] == record["adapter_bytes"]
    with (tmp_path / "reports" / "counting" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["Within one (%)"]) == pytest.approx(100 * small["scores"]["within_one"]["value"])
    table = (tmp_path / "reports" / "counting" / "table.md").read_text()
    assert "Within one" in table
    assert "Median count" in table


def test_its_costs_are_estimated_without_a_run(installed: Path, tmp_path: Path) -> None:
    done = bench(installed, SPEC, "--estimate", "--json", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    for record in json.loads(done.stdout)["records"]:
        assert record["estimate"]["memory"]["train"]["allocated_peak_bytes"] > 0
        assert record["estimate"]["flops"]["train_step"] > 0
        assert record["estimate"]["assumed"]["image_size"] == 16


def test_its_method_is_listed_and_its_mistakes_are_explained(installed: Path) -> None:
    assert re.search(r"(?m)^small_tensors  selective, on any part; needs most$", bench(installed, "--methods").stdout)
    done = bench(installed, SPEC, "--list", "--set", "methods.Small.most=0", "--set", "model.widht=3")
    assert done.returncode == 2
    assert "must be greater than or equal to 1, not 0" in done.stderr
    assert "did you mean 'width'?" in done.stderr
    assert '"bench__tasks' in bench(installed, "--print-schema", "spec").stdout


def test_contributing_shows_the_package_as_it_is() -> None:
    blocks = dict(re.findall(r"`(tests/outside/[\w./]+)`:\n\n```\w+\n(.*?)```", CONTRIBUTING, flags=re.DOTALL))
    assert set(blocks) == {"tests/outside/counting/small_tensors.py", "tests/outside/pyproject.toml"}
    for path, shown in blocks.items():
        assert shown.strip() in (ROOT / path).read_text()
    for file in sorted((OUTSIDE / "counting").glob("[!_]*.py")):
        assert f"tests/outside/counting/{file.name}" in CONTRIBUTING

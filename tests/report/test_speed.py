"""``--report-only`` answers in under a second and imports neither torch nor, in its own process, matplotlib."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store import ResultsFile
from tests.report.conftest import Case

HEAVY = ("torch", "transformers", "matplotlib", "pandas", "numpy", "PIL")


@pytest.fixture
def command(root: Path, demo: Case, tmp_path: Path) -> list[str]:
    """The call, with records and an up-to-date report in place."""
    file = ResultsFile(tmp_path / "results" / "table1" / "demo.jsonl")
    for record in demo.fill(cuda=False).records.values():
        file.append(record)
    folders = ["--results", str(tmp_path / "results"), "--reports", str(tmp_path / "reports")]
    call = [
        str(root / "run_bench.py"),
        str(root / "specs" / "table1.yaml"),
        "--report-only",
        "--scale",
        "demo",
        *folders,
    ]
    run([sys.executable, *call])
    assert (tmp_path / "reports" / "table1" / "pareto.svg").is_file()
    return call


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_report_only_imports_nothing_heavy(command: list[str]) -> None:
    done = run([sys.executable, "-X", "importtime", *command])
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "bench" in imported
    assert imported.isdisjoint(HEAVY)
    assert "T-T-LoRA rank=8" in done.stdout


def cpu_seconds(command: list[str]) -> float:
    """User and system time of the call and its children, which other work on the machine distorts less."""
    before = os.times()
    run([sys.executable, *command])
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_report_only_takes_less_than_a_second(command: list[str]) -> None:
    assert min(cpu_seconds(command) for _ in range(5)) < 1.0

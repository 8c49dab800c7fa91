"""An interrupt in the first moments, and streams that nobody reads: a line and an exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.sweeps import maps, processes_with, wait_until

REPORT = ("specs/table1.yaml", "--scale", "demo", "--report-only", "--results", "results/gallery")


@pytest.fixture
def script(root: Path, tmp_path: Path) -> Path:
    """The installed command, as pip writes it."""
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["peft-freeze-bench"].partition(":")
    path = tmp_path / "peft-freeze-bench"
    path.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return path


@pytest.mark.parametrize("installed", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.2])
def test_ctrl_c_while_it_starts(root: Path, script: Path, installed: bool, after_s: float) -> None:
    argv = [sys.executable, str(script if installed else root / "run_bench.py"), "specs/table1.yaml", "--list"]
    environ = os.environ | {"PYTHONPATH": str(root)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(argv, cwd=root, env=environ, stdout=pipe, stderr=pipe, text=True)
    wait_until(lambda: process.poll() is not None or "pydantic_core" in maps(process.pid))
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    assert (process.returncode, err.splitlines()[-1:]) in ((130, ["interrupted"]), (0, err.splitlines()[-1:]))
    assert process.returncode == 130 or after_s > 0.1


def run(root: Path, *arguments: str, stdout: int, stderr: int = subprocess.PIPE) -> tuple[int, str]:
    argv = [sys.executable, "run_bench.py", *arguments]
    done = subprocess.run(argv, cwd=root, stdout=stdout, stderr=stderr, text=True, check=False)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("specs/table1.yaml", "--list"), 1),
        (("--help",), 1),
        (("--version",), 1),
        (("--methods",), 1),
        (("compare", "results/gallery", "results/gallery"), 2),
        (("export", "results/gallery", "--format", "csv"), 2),
    ],
)
def test_a_full_or_closed_stdout_is_one_line(root: Path, arguments: tuple[str, ...], code: int) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended, err = run(root, *arguments, stdout=full.fileno())
    assert (ended, err.splitlines()[-1]) == (
        code,
        "cannot write to stdout (No space left on device): the output is not complete; records and reports are kept",
    )
    assert "Traceback" not in err
    reading, writing = os.pipe()
    os.close(reading)
    ended, err = run(root, *arguments, stdout=writing)
    os.close(writing)
    assert ended == code
    assert "cannot write to stdout (Broken pipe)" in err.splitlines()[-1]


def test_the_report_is_written_though_nobody_reads_its_summary(root: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        code, err = run(root, *REPORT, "--reports", str(tmp_path), stdout=full.fileno())
    assert code == 1
    assert "table1: cannot write to stdout" in err
    assert "Traceback" not in err
    assert (tmp_path / "table1" / "pareto_column.pdf").stat().st_size > 1000


def test_a_closed_stdout_leads_nowhere(root: Path) -> None:
    argv = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "run_bench.py", "specs/table1.yaml", "--list"]
    assert subprocess.run(argv, cwd=root, check=False).returncode == 0


def test_an_interrupted_report_leaves_no_process(root: Path, tmp_path: Path) -> None:
    mark = f"leave={tmp_path}"
    environ = os.environ | {"BENCH_TEST_MARK": mark}
    argv = [sys.executable, "run_bench.py", *REPORT, "--reports", str(tmp_path)]
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(argv, cwd=root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: len(processes_with(BENCH_TEST_MARK=mark)) > 1, timeout_s=60)
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
        wait_until(lambda: not processes_with(BENCH_TEST_MARK=mark), timeout_s=3)

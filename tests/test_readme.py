"""The README's commands and examples do what it says; its tables are those of the gallery."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip().split("  #")[0].rstrip() for line in README.splitlines() if line.startswith("    python ")]
RUNS = [c for c in COMMANDS if c.startswith("python run_bench.py specs/")]
ABOUT_COSTS = re.compile("--(estimate|budget)")
"""Options that do not go with --list; tests/test_docs.py tries their commands."""


def _run(folder: Path, arguments: list[str], program: Path = Path()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program / "run_bench.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _section(name: str) -> str:
    return README.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0].strip()


def test_the_two_commands_that_ci_runs_are_there() -> None:
    assert "python -m pip install -e . && python run_bench.py specs/table1.yaml" in COMMANDS
    assert 'python -m pip install -e ".[test]" && python -m pytest' in COMMANDS


@pytest.mark.parametrize("command", [c for c in RUNS if not ABOUT_COSTS.search(c)])
def test_every_run_command_is_accepted(root: Path, tmp_path: Path, command: str) -> None:
    """Listed instead of run: arguments, globs and overrides must all be right."""
    arguments = shlex.split(command)[2:]
    specs = [str(path) for path in sorted(root.glob(arguments[0]))]
    rest = [argument for argument in arguments[1:] if argument != "--report-only"]
    done = _run(root, [*specs, *rest, "--list", "--results", str(tmp_path)])
    assert done.returncode == 0, done.stderr


def test_the_example_spec_is_valid(root: Path, tmp_path: Path) -> None:
    spec = tmp_path / "my_question.yaml"
    spec.write_text(README.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    done = _run(root, [str(spec), "--list", "--results", str(tmp_path / "results")])
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6


def test_the_example_of_ones_own_model_and_data_is_valid_and_short(root: Path, tmp_path: Path) -> None:
    text = README.partition("## Your own model")[2].partition("```yaml\n")[2].partition("```")[0]
    assert len(text.splitlines()) <= 24, "one screen of a terminal"
    spec = tmp_path / "my_reviews.yaml"
    spec.write_text(text, encoding="utf-8")
    done = _run(root, [str(spec), "--list", "--results", str(tmp_path / "results")])
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "F-F-T", "F-BitFit-T", "F-LoRA-T", "T-T-T"
    ]  # fmt: skip


def test_the_shown_error_is_the_real_one(root: Path) -> None:
    command, _, shown = _section("typo").strip().partition("\n")
    done = _run(root, shlex.split(command.lstrip("$ "))[2:])
    assert done.returncode == 2
    assert [line.strip() for line in shown.splitlines()] == [line.strip() for line in done.stderr.splitlines()]


def test_the_shown_costs_are_those_of_a_fresh_estimate(root: Path, tmp_path: Path) -> None:
    """Of the shown cells. Memory may differ a little: other versions of the libraries allocate differently."""
    shown = _section("estimate").partition("\n")[2]
    labels = sorted(set(re.findall(r"(?m)^ +([FTL][^ ]* rank=\d)  ", shown)))
    assert len(labels) == 4
    only = [argument for label in labels for argument in ("--only", label)]
    # From an empty folder: what is shown was estimated without data.
    done = _run(tmp_path, [str(root / "specs" / "table1.yaml"), "--estimate", "--gpu", "ampere", *only], root)
    assert done.returncode == 0, done.stderr
    for label in labels:
        ours, theirs = _numbers(done.stdout, label), _numbers(shown, label)
        assert len(ours) == 7 + 5 + 7
        assert ours[:4] == theirs[:4]  # parameters and adapter: exact
        assert ours == pytest.approx(theirs, rel=0.02, abs=0.02)
    for words in re.split("…|" + "|".join(f"(?m:^ *{label}.*)" for label in labels), shown):
        assert _plain(words) in _plain(done.stdout)


def _numbers(text: str, label: str) -> list[float]:
    rows = re.findall(rf"(?m)^ *{re.escape(label)}  (.*)$", text)
    return [float(number.replace(",", "")) for row in rows for number in row.split()]


def _plain(text: str) -> str:
    return " ".join(re.sub("─+", "", text).split())


@pytest.mark.parametrize("name", ["table1", "vqa_rad_small"])
def test_the_shown_tables_are_the_gallery_s(root: Path, name: str) -> None:
    table = (root / "reports" / "gallery" / name / "table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows
    assert "\n".join(rows) in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_somewhere(root: Path, link: str) -> None:
    assert (root / link).exists()

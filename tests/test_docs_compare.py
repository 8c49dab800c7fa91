"""What docs/compare-and-export.md says of commands, numbers and names is so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import cli, commands, metrics
from bench.analysis.compare import COSTS
from bench.analysis.reproduction import MEASURED
from bench.analysis.tolerances import CompareOptions, default

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "compare-and-export.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
COMMANDS = [
    line.strip().split("  #")[0].rstrip() for line in PAGE.splitlines() if line.startswith("    python run_bench.py")
]

README_COMMANDS = [
    line.strip().split("  #")[0].rstrip()
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    if re.match(r"    python run_bench\.py (compare|export) ", line)
]


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works(command: str, tmp_path: Path) -> None:
    arguments = shlex.split(command)[2:]
    if any(":" in word for word in arguments) and subprocess.run(["git", "rev-parse"], check=False).returncode:
        pytest.skip("no git checkout")
    if "-o" in arguments:
        place = arguments.index("-o") + 1
        arguments[place] = str(tmp_path / arguments[place])
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    if "-o" in arguments:
        assert (tmp_path / Path(arguments[place]).name).stat().st_size > 1000


class Accepted(Exception):  # noqa: N818
    """The arguments are right: now something would be read."""


@pytest.mark.parametrize("command", README_COMMANDS)
def test_every_command_of_the_readme_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(*_: Any, **__: Any) -> None:
        raise Accepted

    for name in ("compare_records", "compare_published", "export"):
        monkeypatch.setattr(commands, name, accept)
    done = CliRunner().invoke(cli.app, shlex.split(command)[2:])
    assert isinstance(done.exception, Accepted), done.output


@pytest.mark.usefixtures("at_root")
def test_the_shown_output_is_the_real_one() -> None:
    shown = PAGE.partition("<!-- inconsistencies:begin -->")[2].partition("<!-- inconsistencies:end -->")[0]
    command, _, output = shown.strip().partition("\n")
    done = CliRunner().invoke(cli.app, shlex.split(command.lstrip("$ "))[2:])
    assert done.stdout.split() == output.split()


def test_the_tolerances_are_those_of_the_code() -> None:
    sizes = {name: f"{100 * default(metrics.get(name)).size:g} %" for name in COSTS}
    assert (
        f"{sizes['memory']} (allocated), {sizes['memory_reserved']} (reserved), {sizes['memory_nvml']} (NVML)" in WORDS
    )
    assert f"{sizes['memory_nvml']} (NVML) or {sizes['memory_host']} (host)" in WORDS
    assert sizes["memory_eval"] == sizes["memory"]
    assert f"| energy | it is larger than {sizes['energy']} |" in WORDS
    assert f"| `step_time` | it is larger than {sizes['step_time']}," in WORDS
    assert {sizes[name] for name in ("params", "params_trainable", "adapter_size")} == {"0 %"}
    assert f"`--alpha` {CompareOptions().alpha:g}" in WORDS
    assert f"| memory, times | {100 * MEASURED.size:g} %;" in WORDS


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()

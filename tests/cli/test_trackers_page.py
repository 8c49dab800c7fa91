"""docs/trackers.md: its commands are accepted, its YAML is valid, and it names what is logged."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import cli, registry, trackers
from bench.execution.contracts import PhaseEnd, Step
from bench.spec.load import read_spec
from bench.sweep import Sweep

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?m)^    python run_bench\.py (.+)$", PAGE)


class Accepted(Exception):  # noqa: N818
    """Arguments and spec are right: now cells would be run."""


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(root: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    def accept(sweep: Sweep, **_: Any) -> None:
        assert sweep.selected[0].run.trackers
        raise Accepted

    monkeypatch.chdir(root)
    monkeypatch.setattr(Sweep, "run", accept)
    done = CliRunner().invoke(cli.app, shlex.split(command))
    assert isinstance(done.exception, Accepted), done.output


def test_the_spec_is_valid_and_shows_every_setting(root: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    table1 = (root / "specs" / "table1.yaml").read_text()
    path = tmp_path / "s.yaml"
    path.write_text(re.sub(r"(?m)^run:\n(  .*\n)+", block, table1))
    trackers = read_spec(path).resolve("paper").spec.run.trackers
    assert tuple(sorted(tracker.name for tracker in trackers)) == registry.names("trackers")
    for tracker in trackers:
        assert tracker.model_fields_set == set(type(tracker).model_fields)


def test_the_names_are_those_logged() -> None:
    step = Step(step=0, loss=1.0, lr=0.1, step_s=0.1, at=0.0)
    end = PhaseEnd(phase="<phase>", seconds=1.0, allocated_peak_bytes=1, reserved_peak_bytes=1, at=0.0)
    for name in (*trackers.step_values(step), *trackers.phase_values(end)):
        assert f"`{name}`" in PAGE

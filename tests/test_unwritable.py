"""A report that cannot be written costs its own spec's files only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import report
from bench.cli import app
from bench.errors import OutputError
from bench.execution import runner
from bench.records.record import Status
from bench.spec.sections import Spec
from tests.test_cli import SPEC, FakeRun


def test_the_other_specs_run_and_all_records_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", FakeRun(Status.OOM))
    for name in ("s.yaml", "t.yaml"):
        Path(name).write_text(SPEC)
    real = report.write_report

    def full_for_the_first(spec: Spec, *others: Any) -> Any:
        if spec.name == "s":
            raise OutputError("disk full: reports/s")
        return real(spec, *others)

    monkeypatch.setattr(report, "write_report", full_for_the_first)
    result = CliRunner().invoke(app, ["s.yaml", "t.yaml", "--json"])
    assert (result.exit_code, "s: disk full: reports/s" in result.stderr) == (1, True)
    shown = json.loads(result.stdout)
    assert [[one["status"] for one in each["records"]] for each in shown] == [["oom"], ["oom"]]
    assert Path("reports/t/table.csv").is_file()

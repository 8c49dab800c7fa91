"""The command line: exit codes, what goes to stdout, and quick answers without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import __version__, report
from bench.cli import app
from bench.errors import OutputError, RecordError
from bench.estimate.gpus import GPUS
from bench.execution import inputs, runner
from bench.execution.runner import RunSummary
from bench.methods.common.catalogue import catalogue
from bench.records.record import CellRecord, Status
from bench.records.store import ResultsFile
from bench.spec.cell import Cell
from bench.spec.sections import Spec

SPEC = """\
model: {family: miss, preset: tiny}
data: {name: easy_vqa, train_limit: 20, test_limit: 6}
train: {steps: 2, batch_size: 4, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 4, num_beams: 1, max_new_tokens: 2}
run: {device: cpu}
methods:
  LoRA: {type: lora, r: 4}
matrix:
  axes:
    parts:
      - {vit: F, jtm: LoRA, dec: LoRA}
      - {vit: F, jtm: T, dec: LoRA}
"""
HEAVY = ("torch", "transformers", "peft", "timm", "pandas", "matplotlib", "numpy", "PIL", "datasets")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("s.yaml").write_text(SPEC)
    return tmp_path


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


class FakeRun:
    """In the place of ``bench.execution.runner.run``: stores a record of the given status for each cell."""

    def __init__(self, *statuses: Status, interrupted: bool = False) -> None:
        self.statuses, self.interrupted = list(statuses), interrupted
        self.called: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}

    def __call__(self, cells: list[Cell], *, results: Path, **others: Any) -> RunSummary:
        self.called = {"labels": [cell.label for cell in cells], "results": results} | others
        file = ResultsFile(results / f"{cells[0].scale}.jsonl")
        now = inputs.inputs_of(cells)
        records = [
            record(cell, status, now[cell.cell_id], **self.changes)
            for cell, status in zip(cells, self.statuses, strict=False)
        ]
        for one in records:
            file.append(one)
        return RunSummary(
            records=records, stored=file.read(), cells=len(cells), finished_before=0, interrupted=self.interrupted
        )


def record(cell: Cell, status: Status, now: inputs.Inputs, **changes: Any) -> CellRecord:
    kept = cell.model_dump(include={"cell_id", "spec", "scale", "label", "labels", "parts", "seed"})
    kept |= {"data_digest": now.data_digest, "weights_digest": now.weights_digest, "environment": {"device": "cpu"}}
    return CellRecord(**kept | changes, status=status)


@pytest.mark.parametrize(
    ("statuses", "interrupted", "code"),
    [
        ((Status.OK, Status.OOM), False, 0),
        ((Status.OK, Status.DIVERGED), False, 1),
        ((Status.OK,), True, 130),
    ],
)
def test_exit_code(monkeypatch: pytest.MonkeyPatch, statuses: tuple[Status, ...], interrupted: bool, code: int) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(*statuses, interrupted=interrupted))
    result = bench("s.yaml", "--json")
    assert result.exit_code == code
    shown = json.loads(result.stdout)
    assert (shown["spec"], shown["scale"]) == ("s", "default")
    assert [one["status"] for one in shown["records"]] == [str(status) for status in statuses]
    assert Path("reports/s/table.md").is_file() is not interrupted


def test_arguments_reach_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(Status.OK)
    monkeypatch.setattr(runner, "run", run)
    result = bench("s.yaml", "--only", "F-T-*", "--executor", "inline", "--fresh", "--results", "r", "--reports", "p")
    assert result.exit_code == 0
    assert run.called["labels"] == ["F-T-LoRA"]
    assert (run.called["results"], run.called["executor"], run.called["fresh"]) == (Path("r/s"), "inline", True)
    assert result.stderr.startswith("s: scale default (")
    assert "F-LoRA-LoRA" in result.stdout or "F | LoRA | LoRA" in result.stdout  # the report has all cells
    assert Path("p/s/table.tex").is_file()


def test_errors_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> None:
        raise RecordError("results are in use")

    monkeypatch.setattr(runner, "run", locked)
    result = bench("s.yaml")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "results are in use")

    def stopped_twice(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", stopped_twice)
    assert bench("s.yaml").exit_code == 130


def test_missing_data_is_an_error_of_the_arguments() -> None:
    result = bench("s.yaml", "--set", "data={name: slake, root: nowhere}")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr


def test_list() -> None:
    result = bench("s.yaml", "--list")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["F-LoRA-LoRA", "F-T-LoRA"]
    assert all(line.endswith("not run") for line in result.stdout.splitlines())
    shown = json.loads(bench("s.yaml", "--list", "--json", "--seeds", "1,2", "--only", "F-T*").stdout)
    assert [(cell["label"], cell["seed"], cell["status"]) for cell in shown["cells"]] == [
        ("F-T-LoRA seed=1", 1, None),
        ("F-T-LoRA seed=2", 2, None),
    ]


@pytest.mark.parametrize("interrupted", [False, True])
def test_json_says_which_records_are_stale(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    run = FakeRun(Status.OK, interrupted=interrupted)
    monkeypatch.setattr(runner, "run", run)
    assert [one["stale"] for one in json.loads(bench("s.yaml", "--json").stdout)["records"]] == [None]
    run.changes = {"data_digest": "0" * 64}
    for arguments in (("s.yaml", "--json"), ("s.yaml", "--json", "--report-only")):
        [one] = json.loads(bench(*arguments).stdout)["records"]
        assert (one["status"], one["stale"]) == ("ok", "data changed")


def test_list_and_report_show_stored_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(Status.OOM))
    bench("s.yaml")
    assert bench("s.yaml", "--list").stdout.splitlines()[0].endswith("oom")
    assert json.loads(bench("s.yaml", "--list", "--json").stdout)["cells"][0]["to_do"] is None
    monkeypatch.delattr(runner, "run")
    result = bench("s.yaml", "--report-only", "--json", "--reports", "again")
    assert result.exit_code == 0
    assert [one["status"] for one in json.loads(result.stdout)["records"]] == ["oom"]
    assert Path("again/s/table.csv").read_bytes() == Path("reports/s/table.csv").read_bytes()
    assert "no records" in bench("s.yaml", "--report-only", "--results", "none").stderr


def test_several_specs_give_a_list(folder: Path) -> None:
    Path("t.yaml").write_text(SPEC)
    shown = json.loads(bench("s.yaml", "t.yaml", "--list", "--json").stdout)
    assert [one["spec"] for one in shown] == ["s", "t"]
    Path("t.yaml").write_text("name: s\n" + SPEC)
    result = bench("s.yaml", "t.yaml", "--list")
    assert result.exit_code == 2
    assert "t.yaml and s.yaml are both named 's'" in result.stderr
    Path("t.yaml").write_text(SPEC.replace("steps", "stesp"))
    assert bench("s.yaml", str(folder / "t.yaml")).exit_code == 2
    assert not Path("results").exists()  # nothing runs if one of them is wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a spec to run"),
        (("z.yaml",), "no such file"),
        (("s.yaml", "--scale", "papr"), "has no scale 'papr'"),
        (("s.yaml", "--only", "X*"), "no cell has such a label"),
        (("s.yaml", "--seeds", "1,x"), "whole numbers"),
        (("s.yaml", "--seeds", "1,1"), "repeated"),
        (("s.yaml", "--executor", "locl"), "did you mean 'local'"),
        (("s.yaml", "--set", "train.step=3"), "did you mean 'steps'"),
        (("s.yaml", "--estimat"), "No such option"),
        (("--print-schema", "specs"), "write --print-schema"),
        (("s.yaml", "--estimate", "--list"), "--estimate and --list do not go together"),
        (("s.yaml", "--estimate", "--report-only"), "--estimate and --report-only do not go together"),
        (("s.yaml", "--estimate", "--fresh"), "--estimate and --fresh do not go together"),
        (("s.yaml", "--list", "--budget", "24GiB"), "--budget and --list do not go together"),
        (("s.yaml", "--report-only", "--budget", "24GiB"), "--budget and --report-only do not go together"),
        (("s.yaml", "--max-batch", "24GiB"), "--max-batch goes with --estimate"),
        (("s.yaml", "--gpu", "ampere"), "add --estimate or --budget"),
        (("s.yaml", "--estimate", "--gpu", "amper"), "did you mean 'ampere'"),
        (("s.yaml", "--forget"), "--forget needs --scale NAME"),
        (("s.yaml", "--forget", "--scale", "auto"), "--forget needs --scale NAME"),
        (("s.yaml", "--forget", "--scale", "default", "--list"), "--forget and --list do not go together"),
        (("s.yaml", "--forget", "--scale", "default", "--fresh"), "--forget and --fresh do not go together"),
        (("s.yaml", "--forget", "--scale", "default", "--estimate"), "--forget and --estimate do not go together"),
        (("s.yaml", "--forget", "--scale", "default", "--budget", "1GiB"), "--forget and --budget do not go together"),
        (("s.yaml", "--estimate", "--budget", "24"), "--budget '24': write a number and a unit"),
        (("s.yaml", "--estimate", "--max-batch", "24G"), "--max-batch '24G': write a number and a unit"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_an_error_does_not_steer_the_terminal() -> None:
    escape = "\x1b[2J"
    for arguments in ((f"{escape}.yaml",), ("s.yaml", "--set", f"{escape}=1"), ("s.yaml", "--only", escape)):
        result = bench(*arguments)
        assert result.exit_code == 2
        assert "\x1b" not in result.stderr
        assert "\\x1b[2J" in result.stderr


def test_version_and_schemas() -> None:
    assert bench("--version").stdout.startswith(f"peft-freeze-bench {__version__}\n")
    both = json.loads(bench("--print-schema").stdout)
    assert both["spec"] == json.loads(bench("--print-schema", "spec").stdout)
    assert both["record"] == json.loads(bench("--print-schema", "record").stdout)


def test_help_shows_every_option_and_exit_code() -> None:
    text = bench("--help").stdout
    names = ("only", "set", "seeds", "scale", "report-only", "estimate", "budget", "max-batch", "gpu")
    for word in (*(f"--{name}" for name in names), *GPUS, "Examples:", "Exit codes:", "130"):
        assert word in text
    assert "\x1b" not in text


def test_reads_no_records_of_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(Status.OK, Status.OK))
    bench("s.yaml")
    shown = json.loads(bench("s.yaml", "--report-only", "--json", "--set", "train.steps=3").stdout)
    assert shown["records"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("s.yaml", "--list"),
        ("s.yaml", "--set", "train.stesp=3"),
        ("s.yaml", "--report-only"),
        ("compare", "--help"),
        ("compare", "s.yaml", "nowhere"),
        ("export", "s.yaml", "--format", "csv"),
    ],
    ids=" ".join,
)
def test_quick_and_without_heavy_imports(root: Path, folder: Path, arguments: tuple[str, ...]) -> None:
    """Under 1 second of processor time, which other work on the machine distorts less than the clock."""
    (folder / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: open('imported', 'w').write(' '.join(m for m in {HEAVY} if m in sys.modules)))\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(root)])}
    times = []
    for _ in range(3):
        before = os.times()
        command = [sys.executable, str(root / "run_bench.py"), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        right = not {"train.stesp=3", "nowhere", "csv"} & set(arguments)
        assert done.returncode == (0 if right else 2), done.stderr
        assert Path("imported").read_text() == ""
    assert min(times) < 1


def test_the_real_runner_end_to_end() -> None:
    """One cell, inline: the seams between command line, runner, worker and report hold."""
    arguments = ("s.yaml", "--only", "F-LoRA-LoRA", "--executor", "inline", "--json")
    result = bench(*arguments)
    assert result.exit_code == 0, result.stderr
    [one] = json.loads(result.stdout)["records"]
    assert (one["label"], one["status"], one["accuracy"]["global"]["n"]) == ("F-LoRA-LoRA", "ok", 6)
    again = bench(*arguments)
    assert json.loads(again.stdout)["records"] == [one]  # finished cells are not run again


def test_the_methods_that_a_spec_can_name() -> None:
    lines = bench("--methods").stdout.splitlines()
    for entry in catalogue():
        heading = next(line for line in lines if line.startswith(f"{entry.name}  "))
        assert entry.kind in heading
    assert any(line.startswith("last_blocks") and line.endswith("needs k") for line in lines)
    entries = {entry["name"]: entry for entry in json.loads(bench("--methods", "--json").stdout)}
    assert set(entries) == {entry.name for entry in catalogue()}
    assert (entries["VERA"]["key"], entries["VERA"]["fields"]["r"]) == ("peft_type", 256)
    assert entries["lora"]["key"] == "type"
    assert "text models" in entries["PROMPT_TUNING"]["applies_to"]


def test_a_report_that_cannot_be_written_costs_its_spec_s_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(Status.OOM))
    Path("t.yaml").write_text(SPEC)
    real = report.write_report

    def full_for_the_first(spec: Spec, *others: Any) -> Any:
        if spec.name == "s":
            raise OutputError("disk full: reports/s")
        return real(spec, *others)

    monkeypatch.setattr(report, "write_report", full_for_the_first)
    result = bench("s.yaml", "t.yaml", "--json")
    assert (result.exit_code, "s: disk full: reports/s" in result.stderr) == (1, True)
    assert [[one["status"] for one in each["records"]] for each in json.loads(result.stdout)] == [["oom"], ["oom"]]
    assert Path("reports/t/table.csv").is_file()


def test_forget_takes_the_selected_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(Status.OK, Status.OK))
    bench("s.yaml")
    done = bench("s.yaml", "--scale", "default", "--forget", "--only", "F-T-*", "--json")
    assert "removed 1 record and 0 job folders of 1 cells under results/s" in done.stderr
    assert [one["label"] for one in json.loads(done.stdout)["forgotten"]] == ["F-T-LoRA"]
    assert bench("s.yaml", "--list").stdout.count("not run") == 1

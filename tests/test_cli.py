"""The command line: exit codes, what goes to stdout, and quick answers without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench import __version__, environment
from bench.cli import app
from bench.errors import RecordError
from bench.estimate import pool
from bench.estimate.gpus import GPUS
from bench.execution import inputs, runner
from bench.execution.runner import RunSummary
from bench.records.record import CellRecord, Memory, PhaseMemory, Status
from bench.records.store import ResultsFile
from bench.spec.cell import Cell

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
        return RunSummary(records=records, cells=len(cells), finished_before=0, interrupted=self.interrupted)


def record(cell: Cell, status: Status, now: inputs.Inputs, **changes: Any) -> CellRecord:
    kept = cell.model_dump(include={"cell_id", "spec", "scale", "label", "labels", "parts", "seed"})
    kept |= {"data_digest": now.data_digest, "weights_digest": now.weights_digest, "environment": {"device": "cpu"}}
    return CellRecord(**kept | changes, status=status)


@pytest.mark.parametrize(
    ("statuses", "interrupted", "code"),
    [
        ((Status.OK, Status.OOM), False, 0),
        ((Status.OK, Status.DIVERGED), False, 1),
        ((Status.CRASHED, Status.OK), False, 1),
        ((Status.TIMEOUT, Status.OK), False, 1),
        ((Status.ERROR, Status.OK), False, 1),
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
    for word in (
        "--only",
        "--set",
        "--seeds",
        "--scale",
        "--report-only",
        "--estimate",
        "--budget",
        "--max-batch",
        "--gpu",
        "Examples:",
        "Exit codes:",
        "130",
    ):
        assert word in text
    for generation in GPUS:
        assert generation in text
    assert "\x1b" not in text


def test_reads_no_records_of_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", FakeRun(Status.OK, Status.OK))
    bench("s.yaml")
    shown = json.loads(bench("s.yaml", "--report-only", "--json", "--set", "train.steps=3").stdout)
    assert shown["records"] == []


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("s.yaml", "--list"), ("s.yaml", "--set", "train.stesp=3"), ("s.yaml", "--report-only")],
    ids=lambda arguments: arguments[-1],
)
def test_quick_and_without_heavy_imports(root: Path, folder: Path, arguments: tuple[str, ...]) -> None:
    """Under 1 second of processor time, which other work on the machine distorts less than the clock."""
    (folder / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: open('imported', 'w').write(' '.join(m for m in {HEAVY} if m in sys.modules)))\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(root)])}
    command = [sys.executable, str(root / "run_bench.py"), *arguments]
    times = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        after = os.times()
        spent = (after.children_user, after.children_system, -before.children_user, -before.children_system)
        times.append(sum(spent))
        assert done.returncode == (2 if "train.stesp=3" in arguments else 0), done.stderr
        assert Path("imported").read_text() == ""
    assert min(times) < 1


FAKE_ESTIMATOR = (sys.executable, str(Path(__file__).with_name("fake_estimator.py")))
SCALED = SPEC + "scales:\n  demo: {train: {batch_size: 2}}\n  paper: {}\n"


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Estimates come from a fake, which does as told: label -> act."""
    monkeypatch.setattr(pool, "ESTIMATOR", FAKE_ESTIMATOR)
    monkeypatch.setattr(environment, "visible_gpus", list)
    return lambda **told: monkeypatch.setenv("FAKE_ACTS", json.dumps({k.replace("_", "-"): v for k, v in told.items()}))


def test_estimate_prints_tables_and_runs_nothing(acts: Callable[..., None]) -> None:
    acts(F_T_LoRA="big")
    Path("s.yaml").write_text(SCALED.replace("easy_vqa, train_limit: 20, test_limit: 6", "slake, root: nowhere"))
    result = bench("s.yaml", "--estimate", "--budget", "24GiB", "--max-batch", "16GiB", "--gpu", "hopper")
    assert result.exit_code == 0, result.stderr
    about = "Scale: paper; predicted for a hopper GPU (as asked for); largest training batch within 16 GiB."
    assert " ".join(result.stdout.split()).startswith(f"s {about}")
    memory = result.stdout.partition("Peak GPU memory")[2].splitlines()
    assert next(line for line in memory if line.startswith("F-LoRA-LoRA")).split()[-3:] == ["yes", "+19.25", "16"]
    assert next(line for line in memory if line.startswith("F-T-LoRA")).split()[-3:] == ["no", "−16.75", "16"]
    assert "gpu hopper" in result.stdout
    assert "s: scale paper (an estimate needs no GPU, data or weights)" in result.stderr
    assert "estimating 2 cells" in result.stderr
    assert not Path("results").exists()
    assert not Path("reports").exists()


def test_estimate_as_json(acts: Callable[..., None]) -> None:
    acts(F_T_LoRA="refuse")
    shown = json.loads(bench("s.yaml", "--estimate", "--json").stdout)
    assert (shown["spec"], shown["scale"]) == ("s", "default")
    first, second = shown["records"]
    assert first.keys() == {
        "cell_id", "label", "labels", "parts", "seed", "estimate", "budget", "measured", "relative_error",
        "relative_train_time",
    }  # fmt: skip
    assert (first["label"], first["parts"]["jtm"], first["budget"]) == ("F-LoRA-LoRA", "LoRA", None)
    assert first["estimate"]["memory"]["train"]["allocated_peak_bytes"] == 4 * 2**30
    assert second["estimate"]["memory"] is None
    assert "8-bit" in second["estimate"]["refused"][0]
    Path("t.yaml").write_text(SCALED)
    chosen = bench("s.yaml", "t.yaml", "--estimate", "--scale", "auto", "--only", "F-T*", "--json", "--budget", "1GiB")
    both = json.loads(chosen.stdout)
    assert [(one["scale"], len(one["records"])) for one in both] == [("default", 1), ("paper", 1)]
    assert both[1]["records"][0]["budget"] == {"bytes": 2**30, "fits": None, "margin_bytes": None}


@pytest.mark.usefixtures("acts")
def test_an_estimate_of_a_named_scale() -> None:
    Path("s.yaml").write_text(SCALED)
    assert json.loads(bench("s.yaml", "--estimate", "--scale", "demo", "--json").stdout)["scale"] == "demo"
    assert bench("s.yaml", "--estimate", "--scale", "demo").stdout.startswith("DEMO: s\n")


def test_several_specs_are_estimated_by_the_same_processes(
    acts: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    acts()
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    monkeypatch.setenv("FAKE_NOTES", "notes")
    for name, steps in (("t", 3), ("u", 4)):
        Path(f"{name}.yaml").write_text(SPEC.replace("batch_size: 4, opt", f"batch_size: {steps}, opt"))
    result = bench("t.yaml", "u.yaml", "--estimate")
    assert result.exit_code == 0
    asked = [line.split()[0] for line in Path("notes").read_text().splitlines()]
    assert (len(asked), len(set(asked))) == (4, 1)
    assert result.stdout.index("t\nScale") < result.stdout.index("u\nScale")
    assert result.stderr.count("estimating 4 cells") == 1


def test_an_estimate_that_fails_is_an_error(acts: Callable[..., None]) -> None:
    acts(F_T_LoRA="fail")
    result = bench("s.yaml", "--estimate")
    assert result.exit_code == 1
    assert "Traceback: division by zero" in result.stderr
    assert "F-LoRA-LoRA" in result.stdout
    assert "Not modelled (F-T-LoRA): the estimate failed (ZeroDivisionError: division by zero)" in result.stdout


@pytest.mark.usefixtures("acts")
def test_measured_memory_stands_beside_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    phase = PhaseMemory(allocated_peak_bytes=5 * 2**30)
    run = FakeRun(Status.OK)
    monkeypatch.setattr(runner, "run", run)
    run.changes = {"memory": Memory(train=phase)}
    bench("s.yaml")
    shown = json.loads(bench("s.yaml", "--estimate", "--json").stdout)
    assert shown["records"][0]["measured"] == {"train_allocated_peak_bytes": 5 * 2**30}
    assert shown["records"][0]["relative_error"] == {"train_allocated_peak_bytes": pytest.approx(-0.2)}
    assert shown["records"][1]["measured"] is None


def test_a_run_with_a_budget_skips_what_cannot_fit(acts: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    acts(F_LoRA_LoRA="big", F_T_LoRA="big")
    result = bench("s.yaml", "--budget", "24GiB", "--json")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)["records"]
    assert [(one["status"], one["error"]["type"]) for one in records] == [("skipped", "DoesNotFit")] * 2
    assert records[0]["error"]["message"] == (
        "needs 40.75 GiB on an ampere GPU (predicted: 40.25 reserved in training + 0.50 context), budget 24 GiB"
    )
    assert "F-T-LoRA: skipped (needs 40.75 GiB on an ampere GPU" in result.stderr
    table = Path("reports/s/table.md").read_text()
    assert "| ≈ 40.00 |" in table
    assert "skipped (needs ≈ 40.75 GiB)" in table
    assert bench("s.yaml", "--list").stdout.count("skipped") == 2
    run = FakeRun(Status.OK, Status.OK)
    monkeypatch.setattr(runner, "run", run)
    assert bench("s.yaml").exit_code == 0
    assert (run.called["check_budget"], len(run.called["labels"])) == (None, 2)


def test_a_cell_whose_memory_is_not_known_runs_with_a_warning(acts: Callable[..., None]) -> None:
    acts(F_LoRA_LoRA="refuse")
    arguments = ("s.yaml", "--only", "F-LoRA-LoRA", "--budget", "1GiB", "--executor", "inline", "--json")
    result = bench(*arguments)
    assert [one["status"] for one in json.loads(result.stdout)["records"]] == ["ok"]
    assert "warning: F-LoRA-LoRA: runs without a look at the budget" in result.stderr


def test_the_real_runner_end_to_end() -> None:
    """One cell, inline: the seams between command line, runner, worker and report hold."""
    arguments = ("s.yaml", "--only", "F-LoRA-LoRA", "--executor", "inline", "--json")
    result = bench(*arguments)
    assert result.exit_code == 0, result.stderr
    [one] = json.loads(result.stdout)["records"]
    assert (one["label"], one["status"], one["accuracy"]["global"]["n"]) == ("F-LoRA-LoRA", "ok", 6)
    again = bench(*arguments)
    assert json.loads(again.stdout)["records"] == [one]  # finished cells are not run again

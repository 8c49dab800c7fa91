"""``--estimate`` and ``--budget``: what is shown, which GPU is assumed, and which cells a budget keeps from running."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import environment
from bench.environment import Gpu
from bench.errors import SpecError
from bench.estimate import budget, pool
from bench.estimate.budget import assumed_gpu, check_budget
from bench.estimate.gpus import GPUS, generation
from bench.execution import runner
from bench.records.costs import Estimate, PredictedMemory
from bench.records.record import Memory, PhaseMemory, Status
from tests.cli.test_run import SPEC, FakeRun, bench
from tests.cli.test_run import folder as folder
from tests.factories import GIB, make_estimate
from tests.sweeps import make_cell

FAKE_ESTIMATOR = (sys.executable, str(Path(__file__).parents[1] / "fake_estimator.py"))
SCALED = SPEC + "scales:\n  demo: {train: {batch_size: 2}}\n  paper: {}\n"


@pytest.fixture(autouse=True)
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
    assert "warning: F-LoRA-LoRA: runs without a check of the budget" in result.stderr


def test_without_a_gpu_the_default_is_assumed() -> None:
    gpu = assumed_gpu(None)
    assert (gpu.name, str(gpu)) == ("ampere", "an ampere GPU")
    assert "no NVIDIA GPU is visible" in gpu.reason


@pytest.mark.parametrize(
    ("capability", "name", "reason"),
    [
        ((9, 0), "hopper", "as the NVIDIA X that is visible"),
        ((8, 6), "ampere", "as the NVIDIA X that is visible"),
        ((6, 1), "ampere", "the default, since that of NVIDIA X is not known"),
        (None, "ampere", "the default, since that of NVIDIA X is not known"),
    ],
)
def test_the_visible_gpu_decides(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, name: str, reason: str
) -> None:
    visible = [Gpu(token="0", name="NVIDIA X", capability=capability)]
    monkeypatch.setattr(environment, "visible_gpus", lambda: visible)
    gpu = assumed_gpu(None)
    assert gpu.name == name
    assert gpu.reason.startswith(reason)
    assert assumed_gpu("turing").name == "turing"


def test_an_unknown_gpu_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"--gpu 'hoper' is not known.*'hopper'"):
        assumed_gpu("hoper")


def test_generations() -> None:
    found = {c: generation(c) for c in [(5, 2), (7, 0), (7, 5), (8, 0), (8, 7), (8, 9), (9, 0), (10, 0), (12, 1)]}
    assert list(found.values()) == [
        None, "volta", "turing", "ampere", "ampere", "ada", "hopper", "blackwell", "blackwell",
    ]  # fmt: skip
    assert set(found.values()) - {None} == set(GPUS)


def test_what_does_not_fit_says_why() -> None:
    gpu = assumed_gpu("hopper")
    memory = make_estimate(25.16).memory
    assert memory is not None
    assert budget._does_not_fit(memory, gpu, 24 * GIB) == (
        "needs 25.91 GiB on a hopper GPU (predicted: 25.41 reserved in training + 0.50 context), budget 24 GiB"
    )
    evaluation = PredictedMemory(train=None, eval=memory.eval, context_bytes=memory.context_bytes)
    assert "1.25 reserved in evaluation + 0.50 context), budget 1 GiB" in budget._does_not_fit(evaluation, gpu, GIB)


def test_only_cells_that_cannot_fit_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [make_cell("ok"), make_cell("big", lr=2e-3), make_cell("refuse", lr=3e-3), make_cell("fail", lr=4e-3)]
    warned: list[str] = []
    unfit = check_budget(cells, gpu=assumed_gpu(None), budget_bytes=24 * GIB, warn=warned.append)
    assert unfit.keys() == {cells[1].cell_id}
    [found] = unfit.values()
    assert found.reason.startswith("needs 40.75 GiB on an ampere GPU")
    assert found.estimate.memory is not None
    assert [text.split(": ", 2)[:2] for text in warned] == [["warning", "refuse"], ["warning", "fail"]]
    assert "8-bit optimizers" in warned[0]
    assert "Traceback: division by zero" in capsys.readouterr().err


def test_a_budget_is_met_to_the_byte() -> None:
    cell = make_cell("ok")
    needed = 4 * GIB + GIB // 4 + GIB // 2
    gpu = assumed_gpu(None)
    assert not check_budget([cell], gpu=gpu, budget_bytes=needed, warn=print)
    assert check_budget([cell], gpu=gpu, budget_bytes=needed - 1, warn=print)


def test_failures_are_told_apart_from_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*labels: str) -> tuple[dict[str, Estimate], set[str]]:
        cells = [make_cell(label, lr=number) for number, label in enumerate(labels, start=1)]
        return budget.estimate(cells, gpu=assumed_gpu(None))

    assert not run("ok", "refuse")[1]
    found, failed = run("ok", "kill")
    assert len(failed) == 1
    assert failed < found.keys()
    assert "kill: the process that estimated it ended (killed by signal 9)" in capsys.readouterr().err

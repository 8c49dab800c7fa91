"""Which GPU is assumed, and which cells a budget keeps from running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import environment, estimates
from bench.environment import Gpu
from bench.errors import SpecError
from bench.estimate import pool
from bench.estimate.gpus import GPUS, generation
from bench.estimates import assumed_gpu, check_budget
from bench.records.costs import Estimate, PredictedMemory
from tests.factories import GIB, make_estimate
from tests.sweeps import make_cell

FAKE = (sys.executable, str(Path(__file__).with_name("fake_estimator.py")))


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ESTIMATOR", FAKE)
    monkeypatch.setattr(environment, "visible_gpus", list)


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
    assert estimates._does_not_fit(memory, gpu, 24 * GIB) == (
        "needs 25.91 GiB on a hopper GPU (predicted: 25.41 reserved in training + 0.50 context), budget 24 GiB"
    )
    evaluation = PredictedMemory(train=None, eval=memory.eval, context_bytes=memory.context_bytes)
    assert "1.25 reserved in evaluation + 0.50 context), budget 1 GiB" in estimates._does_not_fit(evaluation, gpu, GIB)


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
        return estimates.estimate(cells, gpu=assumed_gpu(None))

    assert not run("ok", "refuse")[1]
    found, failed = run("ok", "kill")
    assert len(failed) == 1
    assert failed < found.keys()
    assert "kill: the process that estimated it ended (killed by signal 9)" in capsys.readouterr().err

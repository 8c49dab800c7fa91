"""Whole cells: equal bits for equal seeds, every status, what is measured and what is null on a CPU."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench import environment
from bench.environment import Revision
from bench.models.miss.model import MissModel
from bench.records.record import CellRecord, Failure, Memory, Status
from bench.spec.cell import Cell
from bench.tasks._normalise import vqa as normalise
from bench.training.adapt import adapt
from bench.training.measure import GpuMeter
from bench.worker import run
from bench.worker.run import run_cell
from tests.datasets.conftest import picture, write_json

Make = Callable[..., Cell]
FROZEN: dict[str, Any] = {"parts": {"vit": "F", "jtm": "F", "dec": "F"}, "methods": {}}


def predictions(job: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job / "predictions.jsonl").read_text().splitlines()]


def losses(record: CellRecord) -> list[float]:
    return [point.loss for point in record.loss_curve]


def failure(record: CellRecord, status: Status = Status.ERROR) -> Failure:
    assert record.status is status
    assert record.error is not None
    assert record.accuracy is None
    return record.error


@pytest.fixture(scope="module")
def finished(make_cell: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[CellRecord, Path, Cell]:
    """One finished cell that several tests look at."""
    job = tmp_path_factory.mktemp("job")
    cell = make_cell(train={"log_every": 1, "save_adapter": True})
    return run_cell(cell, job), job, cell


def test_the_record_is_complete(finished: tuple[CellRecord, Path, Cell]) -> None:
    record, _, cell = finished
    assert (record.status, record.error, record.steps) == (Status.OK, None, 6)
    assert record.params is not None
    assert 0 < record.params.trainable < record.params.total
    assert record.params.by_part["vit"].trainable == 0
    assert [point.step for point in record.loss_curve] == list(range(6))
    assert record.loss_curve[0].lr == cell.train.optimizer.lr
    assert None not in record.time.model_dump().values()
    assert record.time.warmup_steps == 2
    assert record.data_digest
    assert record.environment["device"] == "cpu"
    assert record.environment["torch_threads"] == 1
    assert Cell.model_validate(record.settings) == cell


def test_gpu_fields_are_null_on_a_cpu_and_the_host_is_measured(finished: tuple[CellRecord, Path, Cell]) -> None:
    record = finished[0]
    assert record.memory == Memory(host_rss_peak_bytes=record.memory.host_rss_peak_bytes)
    assert record.energy_j is None
    assert (record.memory.host_rss_peak_bytes or 0) > 100 * 2**20


def test_predictions_agree_with_the_score(finished: tuple[CellRecord, Path, Cell]) -> None:
    record, job, cell = finished
    lines = predictions(job)
    assert record.predictions == f"demo/{cell.cell_id}/predictions.jsonl"
    assert record.accuracy is not None
    for kind, score in (("open", record.accuracy.open), ("closed", record.accuracy.closed)):
        own = [line for line in lines if line["answer_type"] == kind]
        assert (score.correct, score.n) == (sum(line["correct"] for line in own), len(own))
    assert record.accuracy.overall.n == len(lines) == 10
    assert all(line["correct"] == (normalise(line["prediction"]) == normalise(line["answer"])) for line in lines)
    assert set(record.accuracy.baselines) == {"always_yes", "always_no", "question_only"}


def test_the_stored_file_holds_adapters_and_trained_parts(finished: tuple[CellRecord, Path, Cell]) -> None:
    record, job, _ = finished
    file = job / "adapter" / "adapter.safetensors"
    tensors = load_file(file)
    assert record.params is not None
    assert sum(t.numel() for t in tensors.values()) == record.params.stored
    assert {name.partition(".")[0] for name in tensors} == {"jtm", "dec"}
    assert record.adapter_bytes == file.stat().st_size


def test_equal_cells_give_equal_bits_and_other_seeds_do_not(
    finished: tuple[CellRecord, Path, Cell], make_cell: Make, tmp_path: Path
) -> None:
    record, job, _ = finished
    torch.rand(5)  # whatever ran before must not matter
    again = run_cell(make_cell(train={"log_every": 1}), tmp_path / "again")
    assert losses(again) == losses(record)
    assert (tmp_path / "again" / "predictions.jsonl").read_bytes() == (job / "predictions.jsonl").read_bytes()
    assert not (tmp_path / "again" / "adapter").exists()
    assert again.adapter_bytes == record.adapter_bytes
    late = run_cell(make_cell(train={"log_every": 1, "zero_grad": "before_backward"}), tmp_path / "late")
    assert losses(late) == losses(record), "when gradients are cleared changes no result"
    other = run_cell(make_cell(seed=7, train={"log_every": 1}), tmp_path / "other")
    assert losses(other) != losses(record)


@pytest.mark.parametrize("precision", ["bf16", "bf16_autocast", "fp16_autocast"])
def test_every_precision_trains(make_cell: Make, tmp_path: Path, precision: str) -> None:
    record = run_cell(make_cell(train={"precision": precision, "steps": 3, "gradient_clip": 1.0}), tmp_path)
    assert (record.status, record.error) == (Status.OK, None)


def test_evaluation_does_not_pay_for_gradients(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MissModel.generate
    kept: list[str] = []

    def watched(self: MissModel, *rest: Any) -> list[str]:
        kept.extend(name for name, p in self.module.named_parameters() if p.grad is not None)
        return real(self, *rest)

    monkeypatch.setattr(MissModel, "generate", watched)
    assert run_cell(make_cell(), tmp_path).status is Status.OK
    assert kept == []


def test_energy_is_null_where_no_step_was_timed(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GpuMeter, "energy_j", 0.001)
    assert run_cell(make_cell(train={"steps": 2}), tmp_path / "warm-up only").energy_j is None
    assert run_cell(make_cell(train={"steps": 3}), tmp_path / "one step timed").energy_j == 0.001


def test_a_saved_model_is_loaded_by_the_next_cell_with_all_parts_frozen(make_cell: Make, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    whole = {"parts": {"vit": "T", "jtm": "T", "dec": "T"}, "methods": {}}
    first = run_cell(make_cell(**whole, train={"save_model": str(folder)}), tmp_path / "first")
    assert first.status is Status.OK, first.error
    weights = {"kind": "folder", "path": str(folder)}
    second = run_cell(make_cell(**FROZEN, model={"weights": weights}), tmp_path / "second")
    assert (second.status, second.steps, second.adapter_bytes) == (Status.OK, 0, None)
    assert second.time.train_s is None
    assert second.accuracy is not None
    assert predictions(tmp_path / "second") == predictions(tmp_path / "first")
    assert second.weights_digest


def test_a_diverging_loss_is_a_result_with_its_step(make_cell: Make, tmp_path: Path) -> None:
    optimizer = {"name": "sgd", "lr": 1e30}
    record = run_cell(make_cell(train={"optimizer": optimizer, "log_every": 1}), tmp_path)
    error = failure(record, Status.DIVERGED)
    assert (error.phase, error.type) == ("train", "DivergedError")
    assert error.step == record.steps == len(record.loss_curve)
    assert all(math.isfinite(loss) for loss in losses(record))
    assert record.params is not None


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"precision": "fp16"}, "use precision fp16_autocast or bf16"),
        (
            {
                "optimizer": {"name": "sgd", "lr": 1e38, "weight_decay": 1e10},
                "steps": 1,
                "schedule": "constant",
            },
            "weights became NaN or infinite in the last step (0)",
        ),
    ],
)
def test_a_divergence_says_why(make_cell: Make, tmp_path: Path, train: dict[str, Any], words: str) -> None:
    assert words in failure(run_cell(make_cell(train=train), tmp_path), Status.DIVERGED).message


def out_of_memory(*_: Any, **__: Any) -> Any:
    return torch.empty(10**15)


@pytest.mark.parametrize(
    ("place", "phase", "step"),
    [
        ("load_data", "setup", None),
        ("adapt", "load", None),
        ("MissModel.loss", "train", 0),
        ("stored_tensors", "train", None),
        ("MissModel.generate", "eval", 0),
    ],
)
def test_out_of_memory_is_a_result_with_its_phase(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, phase: str, step: int | None
) -> None:
    owner: Any = MissModel if place.startswith("MissModel") else run
    monkeypatch.setattr(owner, place.rpartition(".")[2], out_of_memory)
    record = run_cell(make_cell(), tmp_path)
    error = failure(record, Status.OOM)
    assert (error.phase, error.step) == (phase, step)
    assert record.data_digest, "without it nobody can tell which data the result is of"
    assert (record.params is not None) == (phase in ("train", "eval"))
    assert (record.time.train_s is not None) == (place in ("stored_tensors", "MissModel.generate"))


def test_memory_that_runs_out_in_a_later_step_names_it(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = MissModel.loss, iter(range(9))

    def third(self: MissModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if next(calls) == 3:
            raise MemoryError
        return real(self, batch)

    monkeypatch.setattr(MissModel, "loss", third)
    record = run_cell(make_cell(train={"log_every": 1}), tmp_path)
    assert failure(record, Status.OOM).step == record.steps == len(record.loss_curve) == 3


def test_the_revision_is_the_one_the_cell_started_with(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, commit = MissModel.loss, ["start"]
    monkeypatch.setattr(environment, "_git_revision", cache(lambda _: Revision(commit=commit[0], dirty=False)))

    def commit_meanwhile(self: MissModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        commit[0] = "later"
        return real(self, batch)

    monkeypatch.setattr(MissModel, "loss", commit_meanwhile)
    assert run_cell(make_cell(), tmp_path).environment["git"]["commit"] == "start"


def test_a_failed_audit_fails_the_cell(make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: Any, *rest: Any) -> Any:
        adapters = adapt(model, *rest)
        model.part("vit").requires_grad_(True)
        return adapters

    monkeypatch.setattr(run, "adapt", careless)
    error = failure(run_cell(make_cell(), tmp_path))
    assert error.type == "AuditError"
    assert "part vit (F) must not train" in error.message


def test_a_fault_of_ours_keeps_its_traceback(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MissModel, "collate", lambda *_: dict[str, int]()["pixel_values"])
    error = failure(run_cell(make_cell(), tmp_path))
    assert (error.type, error.phase) == ("KeyError", "train")
    assert "test_run.py" in error.log_tail
    assert "KeyError: 'pixel_values'" in capfd.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_says_what_to_do(make_cell: Make, tmp_path: Path) -> None:
    assert "set it to auto or cpu" in failure(run_cell(make_cell(run={"device": "cuda"}), tmp_path)).message


def test_ctrl_c_leaves_no_record(make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(MissModel, "loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_cell(make_cell(), tmp_path)


def test_a_rule_for_closed_questions_that_the_data_cannot_answer_ends_a_cell_before_it_trains(
    make_cell: Make, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    names = [f"vqa-rad/synpic{number}.jpg" for number in range(40)]
    for name in names:
        picture(root / "image" / name)
    rows = [{"img_name": name, "qid": n, "answer": "no", "question_pool": ["Is it?"]} for n, name in enumerate(names)]
    write_json(root / "instruction_data.json", rows)
    data = {"name": "mile_instruction", "root": str(root), "evaluate_on": "held_out"}
    error = failure(run_cell(make_cell(data=data, evaluate={"closed": "answer_type"}), tmp_path / "job"))
    assert error.phase == "setup"
    assert "set `evaluate.closed: yes_no`" in error.message
    assert run_cell(make_cell(data=data, evaluate={"closed": "yes_no"}), tmp_path / "other").status is Status.OK


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_every_phase_has_its_peaks(make_cell: Make, tmp_path: Path) -> None:
    record = run_cell(make_cell(run={"device": "cuda"}), tmp_path)
    assert record.status is Status.OK, record.error
    for phase in (record.memory.load, record.memory.train, record.memory.eval):
        assert phase.allocated_peak_bytes
        assert phase.reserved_peak_bytes is not None
        assert phase.reserved_peak_bytes >= phase.allocated_peak_bytes
    assert record.environment["device"] == torch.cuda.get_device_name()

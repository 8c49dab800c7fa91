"""What an MlflowClient finds of real and of failing cells, in SQLite and in MLflow's older store of plain files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench import metrics, trackers
from bench.execution.contracts import Step
from bench.records.record import CellRecord
from bench.spec.cell import Cell
from tests.sweep.real_runs import run_here, small_cell
from tests.sweeps import Sweep, make_cell

for package in ("mlflow", "sqlalchemy", "alembic"):
    pytest.importorskip(package, reason="the extra [mlflow] is not installed")

TRACKER: dict[str, Any] = {"name": "mlflow", "artifacts": ["predictions", "log", "adapter"]}
METHODS = {"LoRA": {"type": "lora", "r": 4}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cell, CellRecord]:
    """A cell that ended well, with MLflow's files in the default place."""
    results = tmp_path_factory.mktemp("results")
    adapted = {"parts": {"vit": "F", "jtm": "F", "dec": "LoRA"}, "methods": METHODS, "labels": {"rank": 4}}
    cell = small_cell("F-F-LoRA rank=4", TRACKER, **adapted)
    _, records = run_here([cell], results)
    return results, cell, records[cell.label]


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, experiment: str = "faults") -> list[Any]:
    """All runs of the experiment, the oldest first."""
    own = client(uri)
    found = own.get_experiment_by_name(experiment)
    return list(own.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])) if found else []


def test_a_run_has_settings_curves_and_results(finished: tuple[Path, Cell, CellRecord]) -> None:
    results, cell, record = finished
    uri = f"sqlite:///{results}/mlflow/mlflow.db"
    (found,) = runs(uri)
    assert found.info.run_name == "F-F-LoRA rank=4 demo seed=1"
    assert found.info.status == "FINISHED"
    assert found.data.tags.items() >= {"cell_id": cell.cell_id, "status": "ok", "device": "cpu"}.items()
    wanted = {"parts.dec": "LoRA", "methods.LoRA.r": "4", "train.optimizer.lr": "0.001", "rank": "4", "seed": "1"}
    assert found.data.params.items() >= wanted.items()
    curve = client(uri).get_metric_history(found.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in curve] == [(p.step, pytest.approx(p.loss)) for p in record.loss_curve]
    for name in ("params", "global", "step_time"):
        assert found.data.metrics[f"result/{name}"] == pytest.approx(metrics.get(name).value(record))
    assert found.data.metrics["eval/seconds"] == pytest.approx(record.time.eval_s)


def test_files_go_along_and_nothing_is_scattered(finished: tuple[Path, Cell, CellRecord]) -> None:
    results, cell, _ = finished
    uri = f"sqlite:///{results}/mlflow/mlflow.db"
    (found,) = runs(uri)
    own = client(uri)
    files = {file.path for file in own.list_artifacts(found.info.run_id)}
    assert files == {"predictions.jsonl", "adapter"}, "the inline executor has no log file"
    copy = own.download_artifacts(found.info.run_id, "predictions.jsonl")
    assert Path(copy).read_bytes() == (results / "demo" / cell.cell_id / "predictions.jsonl").read_bytes()
    assert not Path("mlruns").exists()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_failed_cells_are_told_and_tried_again(sweep: Sweep, finished: tuple[Path, Cell, CellRecord]) -> None:
    uri = f"sqlite:///{finished[0]}/mlflow/mlflow.db"
    tracker = TRACKER | {"tracking_uri": uri, "experiment": "failing"}
    cell = make_cell("exit@train", trackers=[tracker])
    sweep.run([cell])
    sweep.run([cell, make_cell("ok", trackers=[tracker])])
    first, second, good = runs(uri, "failing")
    assert [run.info.status for run in (first, second, good)] == ["FAILED", "FAILED", "FINISHED"]
    assert first.data.tags["status"] == "crashed"
    assert first.data.tags["error"].startswith("NoResult: the worker ended with exit code 3")
    assert [f.path for f in client(uri).list_artifacts(first.info.run_id)] == ["log.txt"]


def test_a_run_that_was_left_open_is_closed(finished: tuple[Path, Cell, CellRecord], tmp_path: Path) -> None:
    """A runner that was killed leaves a run that looks alive."""
    from bench.trackers import mlflow

    uri = f"sqlite:///{finished[0]}/mlflow/mlflow.db"
    settings = mlflow.Settings(name="mlflow", tracking_uri=uri, experiment="killed")
    cell = make_cell("ok")
    mlflow.create(settings, tmp_path).start(cell)
    assert [run.info.status for run in runs(uri, "killed")] == ["RUNNING"]
    again = mlflow.create(settings, tmp_path)
    again.start(cell)
    assert [run.info.status for run in runs(uri, "killed")] == ["KILLED", "RUNNING"]
    again.close()
    assert [run.info.status for run in runs(uri, "killed")] == ["KILLED", "KILLED"]


def test_a_run_that_was_cut_off_is_completed(finished: tuple[Path, Cell, CellRecord], tmp_path: Path) -> None:
    """The next runner takes over the cell's result and sends its steps once more."""
    from bench.trackers import mlflow

    results, cell, record = finished
    uri = f"sqlite:///{results}/mlflow/mlflow.db"
    settings = mlflow.Settings(name="mlflow", tracking_uri=uri, experiment="cut off")
    steps = [Step(step=i, loss=1.0 / (i + 1), lr=0.1, step_s=None, at=5.0 + i) for i in range(4)]
    before = mlflow.create(settings, tmp_path)
    before.start(cell)
    before.steps(cell, steps[:3])
    after = mlflow.create(settings, tmp_path)
    after.steps(cell, steps)
    after.end(cell, record, tmp_path / "nothing")
    after.close()
    (found,) = runs(uri, "cut off")
    assert found.info.status == "FINISHED"
    curve = client(uri).get_metric_history(found.info.run_id, "train/loss")
    assert sorted(point.step for point in curve) == [0, 1, 2, 3]


def test_long_values_are_cut(finished: tuple[Path, Cell, CellRecord], tmp_path: Path) -> None:
    from bench.trackers import mlflow

    uri = f"sqlite:///{finished[0]}/mlflow/mlflow.db"
    settings = mlflow.Settings(name="mlflow", tracking_uri=uri, experiment="long")
    cell = make_cell("ok").model_copy(update={"labels": {"a+b": "x" * 9000}})
    mlflow.create(settings, tmp_path).start(cell)
    (found,) = runs(uri, "long")
    assert len(found.data.params["a_b"]) == 6000
    assert len(found.data.params) > len(trackers.main_settings(cell))


def test_the_store_of_plain_files(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which MLflow opens only if asked to; without, the run goes on and says why there is nothing."""
    uri = (tmp_path / "mlruns").as_uri()
    cell = make_cell("ok", trackers=[{"name": "mlflow", "tracking_uri": uri}])
    assert sweep.run([cell]).exit_code == 0
    (warning,) = sweep.listening.messages
    assert warning.startswith("warning: the tracker mlflow is off")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    sweep.run([cell], fresh=True)
    assert [run.info.status for run in runs(uri)] == ["FINISHED"]

"""MLflow: an experiment per spec, a run per cell; by default in an SQLite file in the results folder.

MLflow's other local store, plain files, is no longer developed and opens only with ``MLFLOW_ALLOW_FILE_STORE`` set.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from bench.plugins.settings import TrackerSettings
from bench.trackers import all_settings, phase_values, require_modules, result_values, run_name, step_values

if TYPE_CHECKING:
    from bench.execution.contracts import PhaseEnd, Step
    from bench.records.record import CellRecord
    from bench.spec.cell import Cell

_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100
"""Limits of one call (``mlflow.utils.validation``)."""
_LONGEST_TAG, _LONGEST_PARAM = 5000, 6000
_RUN_STATUS = {"ok": "FINISHED", "interrupted": "KILLED"}
"""All other statuses are FAILED; the tag ``status`` has the record's."""


class Settings(TrackerSettings):
    """MLflow (``[mlflow]`` extra)."""

    name: Literal["mlflow"]
    tracking_uri: str | None = None
    """E.g. ``http://localhost:5000``; null: the file ``mlflow/mlflow.db`` in the results folder of the spec."""
    experiment: str | None = None
    """Name of the experiment; null: that of the spec."""
    artifacts: list[Literal["predictions", "log", "adapter"]] = ["predictions", "log"]
    """Files of a cell that are stored with its run; ``adapter``: if ``train.save_adapter`` keeps one."""

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError(
                "must not hold a user or a password, for it is written into every record; "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            )
        return uri


def check(settings: Settings) -> None:
    """Raises SpecError if MLflow, or what its local store needs, is not installed."""
    local = settings.tracking_uri is None or settings.tracking_uri.startswith("sqlite:")
    require_modules("mlflow", "mlflow", *(("sqlalchemy", "alembic") if local else ()))


def create(settings: Settings, folder: Path) -> MLflow:
    """Open the server, or the local store in ``folder``."""
    import logging

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would send usage statistics over the network
    from mlflow import MlflowClient

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they log every table that they create
    uri, artifacts = settings.tracking_uri, None
    if uri is None:
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    if not uri.startswith(("http:", "https:", "databricks")):  # a server stores them itself
        artifacts = (folder.resolve() / "artifacts").as_uri()
    return MLflow(MlflowClient(tracking_uri=uri), settings, artifacts)


class MLflow:
    """A client and its open runs; see ``bench.execution.contracts.Tracker``."""

    def __init__(self, client: Any, settings: Settings, artifacts: str | None) -> None:
        self._client = client
        self._settings = settings
        self._artifacts = artifacts
        self._runs: dict[str, str] = {}

    def start(self, cell: Cell) -> None:
        """Begin a run beside those of earlier attempts; close one that a killed runner left open."""
        if left := self._left_open(cell):
            self._client.set_terminated(left, "KILLED")
        self._runs[cell.cell_id] = self._create(cell)

    def steps(self, cell: Cell, steps: Sequence[Step]) -> None:
        """Log the steps' curves."""
        self._log(cell, (point for step in steps for point in _points(step_values(step), step.at, step.step)))

    def phase_ended(self, cell: Cell, end: PhaseEnd) -> None:
        """Log seconds and peaks of the phase."""
        self._log(cell, _points(phase_values(end), end.at))

    def end(self, cell: Cell, record: CellRecord, job: Path) -> None:
        """Log results, status and files."""
        ended = datetime.fromisoformat(record.finished_at).timestamp() if record.finished_at else time.time()
        self._log(cell, _points(result_values(record), ended, record.steps or 0))
        tags = {"status": str(record.status), "device": record.environment.get("device")}
        if record.error is not None:
            tags["error"] = f"{record.error.type}: {record.error.message}"
        run = self._runs.pop(cell.cell_id)
        for name, value in tags.items():
            if value is not None:
                self._client.set_tag(run, name, value[:_LONGEST_TAG])
        self._store(run, job)
        self._client.set_terminated(run, _RUN_STATUS.get(str(record.status), "FAILED"), end_time=int(1000 * ended))

    def close(self) -> None:
        """End the runs of cells that were interrupted."""
        for run in self._runs.values():
            self._client.set_terminated(run, "KILLED")

    def _log(self, cell: Cell, points: Iterator[Any]) -> None:
        run = self._runs.get(cell.cell_id) or self._left_open(cell) or self._create(cell)
        self._runs[cell.cell_id] = run
        for batch in _batches(list(points), _METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=batch)

    def _create(self, cell: Cell) -> str:
        from mlflow.entities import Param

        name = self._settings.experiment or cell.spec
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name, self._artifacts)
        about = {"cell_id": cell.cell_id, "spec": cell.spec, "scale": cell.scale, "task": cell.task.name}
        tags = {**about, "seed": str(cell.seed), "model": cell.model.describe()[:_LONGEST_TAG]}
        run: str = self._client.create_run(experiment, tags=tags, run_name=run_name(cell)).info.run_id
        params = [
            Param(re.sub(r"[^\w. /-]", "_", name)[:250], str(value)[:_LONGEST_PARAM])
            for name, value in all_settings(cell).items()
        ]
        for batch in _batches(params, _PARAMS_AT_ONCE):
            self._client.log_batch(run, params=batch)
        return run

    def _left_open(self, cell: Cell) -> str | None:
        """Run that a killed runner left open."""
        experiment = self._client.get_experiment_by_name(self._settings.experiment or cell.spec)
        if experiment is None:
            return None
        wanted = f"tags.cell_id = '{cell.cell_id}' and attributes.status = 'RUNNING'"
        found = self._client.search_runs([experiment.experiment_id], wanted, max_results=1)
        return found[0].info.run_id if found else None

    def _store(self, run: str, job: Path) -> None:
        places = {"predictions": "predictions.jsonl", "log": "log.txt", "adapter": "adapter"}
        for kind in self._settings.artifacts:
            place = job / places[kind]
            if place.is_dir():
                self._client.log_artifacts(run, str(place), artifact_path=kind)
            elif place.is_file():
                self._client.log_artifact(run, str(place))


def _points(values: Mapping[str, float], at: float, step: int = 0) -> Iterator[Any]:
    from mlflow.entities import Metric

    return (Metric(name, value, int(1000 * at), step) for name, value in values.items())


def _batches(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[start : start + size] for start in range(0, len(entries), size))

"""TensorBoard event files: curves of every cell, and its settings and results for the HParams tab.

Without an experiment summary the tab takes its columns from all cells below its ``--logdir``, several specs included.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.plugins.settings import LocalPath, TrackerSettings
from bench.trackers import main_settings, phase_values, require_modules, result_values, step_values

if TYPE_CHECKING:
    from bench.execution.contracts import PhaseEnd, Step
    from bench.records.record import CellRecord
    from bench.spec.cell import Cell


class Settings(TrackerSettings):
    """TensorBoard (``[tensorboard]`` extra)."""

    name: Literal["tensorboard"]
    folder: LocalPath | None = None
    """Folder of the event files of all cells; null: ``tensorboard`` in the results folder of the spec."""


def check(settings: Settings) -> None:  # noqa: ARG001
    """Raises SpecError if TensorBoard is not installed."""
    require_modules("tensorboard", "tensorboard")


def create(settings: Settings, folder: Path) -> TensorBoard:
    """Write below ``settings.folder``, else below ``folder``."""
    return TensorBoard(settings.folder or folder)


class TensorBoard:
    """A folder of event files per cell; see ``bench.execution.contracts.Tracker``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._steps: dict[str, int] = {}

    def start(self, cell: Cell) -> None:
        """Begin a new event file: TensorBoard would join the curves of two attempts."""
        for file in self._place(cell).glob("events.out.tfevents.*"):
            file.unlink()
        self._open(cell).flush()

    def steps(self, cell: Cell, steps: Sequence[Step]) -> None:
        """Write the steps' curves, flushed so that they can be watched."""
        for step in steps:
            self._add(cell, step_values(step), step=step.step, at=step.at)
            self._steps[cell.cell_id] = step.step
        self._open(cell).flush()

    def phase_ended(self, cell: Cell, end: PhaseEnd) -> None:
        """Write points at the cell's last step."""
        self._add(cell, phase_values(end), step=self._steps.get(cell.cell_id, 0), at=end.at)

    def end(self, cell: Cell, record: CellRecord, job: Path) -> None:  # noqa: ARG002
        """Write results, status, and the end of the session in the HParams tab."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.text import summary_v2 as text

        now = time.time()
        self._add(cell, result_values(record), step=record.steps or 0, at=now)
        why = f": {record.error.type}: {record.error.message}" if record.error else ""
        self._write(cell, text.text_pb("status", f"{record.status}{why}"), step=0, at=now)
        status = api_pb2.STATUS_SUCCESS if str(record.status) == "ok" else api_pb2.STATUS_FAILURE
        ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=now)
        data = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
        self._write(cell, _summary(metadata.SESSION_END_INFO_TAG, data), step=0, at=now)
        self._files.pop(cell.cell_id).close()

    def close(self) -> None:
        """Close the files of interrupted cells."""
        for file in self._files.values():
            file.close()

    def _place(self, cell: Cell) -> Path:
        label = re.sub(r"[^A-Za-z0-9._=+-]+", "-", cell.label)[:80]
        return self._folder / cell.scale / f"{label}-{cell.cell_id[:8]}"

    def _open(self, cell: Cell) -> Any:
        """The cell's event file, begun with its settings if there is none."""
        if cell.cell_id not in self._files:
            from tensorboard.plugins.hparams import metadata, plugin_data_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._files[cell.cell_id] = EventFileWriter(str(self._place(cell)))
            session = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
            for name, value in main_settings(cell).items():
                kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
                setattr(session.hparams[name], kind, value)
            data = plugin_data_pb2.HParamsPluginData(session_start_info=session)
            self._write(cell, _summary(metadata.SESSION_START_INFO_TAG, data), step=0, at=time.time())
        return self._files[cell.cell_id]

    def _add(self, cell: Cell, values: Mapping[str, float], *, step: int, at: float) -> None:
        from tensorboard.plugins.scalar import summary_v2 as scalar

        for name, value in values.items():
            self._write(cell, scalar.scalar_pb(name, value), step=step, at=at)

    def _write(self, cell: Cell, summary: Any, *, step: int, at: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._open(cell).add_event(Event(wall_time=at, step=step, summary=summary))


def _summary(tag: str, data: Any) -> Any:
    """Summary for the HParams plugin (``tensorboard.plugins.hparams.metadata``)."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    about = metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])

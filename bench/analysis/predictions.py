"""Scores of single test examples, from the file of predictions that a worker writes for each cell.

A file has one line per example. The task's ``ScoreFacts`` say which field of it a score is the mean of, or how an
answer and a prediction move the score. A file is read when it is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bench import metrics
from bench.files import read_regular
from bench.plugins.contracts import ScoreFacts
from bench.records.record import CellRecord
from bench.records.scores import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 1e-6
"""By how much the mean over the examples may differ from the recorded raw score."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Scores of the examples of one record by one metric."""

    ids: tuple[str, ...]
    """Of the examples, sorted; the same object for the same examples."""
    values: NDArray[np.float64]
    """(examples,): 0 or 1, or a share, in the order of ``ids``; for a score that is no mean (``ScoreFacts.influence``)
    numbers of any size."""


class ExampleScores:
    """Example scores of the records of one spec; ``folder`` is its results folder, null where there are no files.

    ``folders``: ``id`` of a record object -> another results folder, for records that lie elsewhere.
    """

    def __init__(self, folder: Path | None, folders: Mapping[int, Path] | None = None) -> None:
        self.folder = folder
        self._folders = folders or {}
        self._samples: dict[tuple[Path, str, str | None, str], dict[str, Sample]] = {}
        self._orders: dict[tuple[str, ...], tuple[tuple[str, ...], NDArray[np.intp]]] = {}
        self._ids: dict[tuple[str, ...], tuple[str, ...]] = {}

    def sample(self, record: CellRecord, metric: str) -> Sample | None:
        """Scores of the record's examples; ``score`` and ``over_prior`` have those of the task's main metric.

        Null for a metric that is no score, and where the file is missing, damaged, or does not add up to the recorded
        score (it is then another run's).
        """
        name = metrics.underlying_score(record, metric)
        folder = self._folders.get(id(record), self.folder)
        if name is None or folder is None or record.predictions is None:
            return None
        key = (folder, record.cell_id, record.finished_at, record.predictions)
        if key not in self._samples:
            self._samples[key] = self._read(record, folder)
        return self._samples[key].get(name)

    def _read(self, record: CellRecord, folder: Path) -> dict[str, Sample]:
        """Samples of all metrics of the record's task."""
        try:
            # One call for all lines takes a third of the time of a call each.
            lines = json.loads(b"[" + b",".join(prediction_lines(record, folder)) + b"]")
        except (OSError, ValueError, RecursionError):
            return {}
        samples = {}
        for name in metrics.of_task(record.task) if lines and {type(line) for line in lines} == {dict} else ():
            score, sample = record.score(name), self._sample(lines, metrics.task_scores()[name])
            if sample is not None and score is not None and _agree(sample, score):
                samples[name] = sample
        return samples

    def _sample(self, lines: Sequence[Mapping[str, Any]], facts: ScoreFacts) -> Sample | None:
        try:
            if facts.only is not None:
                field, wanted = facts.only
                lines = [line for line in lines if line[field] == wanted]
            if facts.influence is not None:
                values = facts.influence(
                    [str(line["answer"]) for line in lines], [line["prediction"] for line in lines]
                )
            elif facts.outcome is not None:
                import numpy as np

                values = np.array([line[facts.outcome] for line in lines], dtype=np.float64)
            else:
                return None
            ids, order = self._sorted(tuple([str(line["question_id"]) for line in lines]))
        except (KeyError, TypeError, ValueError):
            return None
        return Sample(ids, values[order])

    def _sorted(self, ids: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
        """The ids sorted, and the positions they come from; cells of a data set mostly share an order."""
        if ids not in self._orders:
            import numpy as np

            order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.intp)
            sorted_ids = tuple(ids[index] for index in order)
            self._orders[ids] = (self._ids.setdefault(sorted_ids, sorted_ids), order)
        return self._orders[ids]


def predictions_path(record: CellRecord, folder: Path | None) -> Path | None:
    """The record's file of predictions, whether it is there or not; null for a path outside ``folder``."""
    if folder is None or record.predictions is None:
        return None
    inside = PurePosixPath(record.predictions)
    return None if inside.is_absolute() or ".." in inside.parts else folder / inside


def prediction_lines(record: CellRecord, folder: Path | None) -> list[bytes]:
    """Lines of the record's file of predictions. Raises ValueError for a path outside ``folder``, OSError if the file
    cannot be read."""
    path = predictions_path(record, folder)
    if path is None:
        raise ValueError("not below the results folder")
    return read_regular(path).splitlines()


def _agree(sample: Sample, score: Score) -> bool:
    if len(sample.values) != score.n:
        return False
    if score.correct is not None:
        return int(sample.values.sum()) == score.correct
    return score.value is not None and abs(float(sample.values.mean()) - score.value) <= TOLERANCE

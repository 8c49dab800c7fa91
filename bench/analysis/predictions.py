"""What became of each test example: the raw material of every statement about uncertainty.

A worker writes one line per example into the cell's file of predictions; the task's ``ScoreFacts`` say which field of
it a score is the mean of, or how an answer and a prediction move it. Files are read when they are asked for, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from bench import metrics
from bench.files import read_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.analysis.rows import Row
    from bench.plugins.contracts import ScoreFacts
    from bench.records.record import CellRecord
    from bench.records.scores import Score

Found = TypeVar("Found")

TOLERANCE = 1e-6
"""By how much the mean of the examples may differ from the recorded raw value."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The examples of one record by one metric."""

    ids: tuple[str, ...]
    """Of the examples, sorted; the same object for the same examples."""
    values: NDArray[np.float64]
    """(examples,): 0 or 1, or a share, in the order of ``ids``; for a score that is no mean (``ScoreFacts.influence``)
    numbers of any size."""


class ExampleScores:
    """Of the records of one spec; ``folder`` is its results folder, null where there are no files to read."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.remembered: dict[tuple[Hashable, ...], Any] = {}
        """See the decorator."""
        self._samples: dict[str, dict[str, Sample]] = {}
        self._orders: dict[tuple[str, ...], tuple[tuple[str, ...], NDArray[np.intp]]] = {}
        self._ids: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of(self, record: CellRecord, metric: str) -> Mapping[str, float] | None:
        """``question_id`` -> what the example gives to the mean: 0 or 1, or a share such as token F1.

        Null for a metric that is no score, and where the file is missing, damaged, or does not add up to
        the recorded score (it is then another run's).
        """
        sample = self.sample(record, metric)
        return None if sample is None else dict(zip(sample.ids, sample.values.tolist(), strict=True))

    def sample(self, record: CellRecord, metric: str) -> Sample | None:
        """The same as arrays. ``score`` and ``over_prior`` have the examples of the task's main metric."""
        name = metrics.underlying_score(record, metric)
        if name is None or self.folder is None or record.predictions is None:
            return None
        key = f"{record.cell_id} {record.finished_at} {record.predictions}"
        if key not in self._samples:
            self._samples[key] = self._read(record)
        return self._samples[key].get(name)

    def _read(self, record: CellRecord) -> dict[str, Sample]:
        """All metrics of the record's task at once."""
        lines = _lines(self.folder, record.predictions)
        samples = {}
        for name in metrics.of_task(record.task) if lines else ():
            facts, score = metrics.task_scores()[name], record.score(name)
            sample = self._sample(lines, facts)
            if sample is not None and score is not None and _agree(sample, score):
                samples[name] = sample
        return samples

    def _sample(self, lines: Sequence[Mapping[str, Any]], facts: ScoreFacts) -> Sample | None:
        import numpy as np

        try:
            if facts.only is not None:
                field, wanted = facts.only
                lines = [line for line in lines if line[field] == wanted]
            if facts.influence is not None:
                values = facts.influence(
                    [str(line["answer"]) for line in lines], [line["prediction"] for line in lines]
                )
            elif facts.outcome is not None:
                values = np.array([line[facts.outcome] for line in lines], dtype=np.float64)
            else:
                return None
            ids, order = self._sorted(tuple([str(line["question_id"]) for line in lines]))
        except (KeyError, TypeError, ValueError):
            return None
        return Sample(ids, values[order])

    def _sorted(self, ids: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.intp]]:
        """The ids in their canonical order, and the places they come from. All cells of a data set share an order."""
        import numpy as np

        if ids not in self._orders:
            order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.intp)
            sorted_ids = tuple(ids[index] for index in order)
            self._orders[ids] = (self._ids.setdefault(sorted_ids, sorted_ids), order)
        return self._orders[ids]


def remembered(
    compute: Callable[[Row, metrics.Metric, ExampleScores], Found],
) -> Callable[[Row, metrics.Metric, ExampleScores], Found]:
    """Computed once for each group and metric, as long as the examples live: tables, plot and page ask for the same."""

    @wraps(compute)
    def known(group: Row, metric: metrics.Metric, examples: ExampleScores) -> Found:
        key = (compute, group, metric.name)
        if key not in examples.remembered:
            examples.remembered[key] = compute(group, metric, examples)
        found: Found = examples.remembered[key]
        return found

    return known


def _lines(folder: Path | None, predictions: str | None) -> list[dict[str, Any]]:
    """The objects of a file of predictions below ``folder``; none if it is missing, damaged, or elsewhere."""
    if folder is None or predictions is None:
        return []
    inside = PurePosixPath(predictions)
    if inside.is_absolute() or ".." in inside.parts:
        return []
    try:
        text = read_regular(folder / inside)
        found = json.loads(b"[" + b",".join(text.splitlines()) + b"]")  # one call: a third of the time of many
    except (OSError, ValueError, RecursionError):
        return []
    return found if {type(line) for line in found} <= {dict} else []


def _agree(sample: Sample, score: Score) -> bool:
    if len(sample.values) != score.n:
        return False
    if score.correct is not None:
        return int(sample.values.sum()) == score.correct
    return score.value is not None and abs(float(sample.values.mean()) - score.value) <= TOLERANCE

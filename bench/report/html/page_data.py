"""Data of the page's script: rows with values by every metric, cells with curves and memory, and record fields."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bench import format, metrics
from bench.analysis.rows import EvalSet, Row, eval_sets, outcome
from bench.format import visible
from bench.metrics import Metric
from bench.records.costs import MEMORY_KINDS
from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell

if TYPE_CHECKING:
    from bench.spec.sections import Spec

LABEL_LENGTH, FIELD_LENGTH, LOG_LINES, LOG_LINE = 160, 300, 40, 400
"""Characters shown of a label, of a field of a record and of a line of a log, and lines shown of a log."""
MAX_POINTS, MIN_POINTS = 24_000, 24
"""Points of all training curves together, and of one."""
_ALIASES = ("score", "memory_predicted")
"""Second names of other metrics."""
_SCORES = ("score", "over_prior", "loss")
"""Scores beside those of the tasks."""
_NO_BASELINE: dict[str, Any] = {"called": "the prior", "values": {}}
_ELSEWHERE = {"loss_curve", "error", "cell_id", "label", "labels", "parts", "spec", "scale", "schema_version", "status"}
_IDENTITY = ("cell_id", "spec", "scale", "label", "labels", "parts", "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A metric, measured or predicted, that an axis of the plot can show."""

    metric: Metric
    predicted: bool

    @property
    def is_score(self) -> bool:
        """Whether the metric is a score, not a cost."""
        return self.metric.score is not None or self.metric.name in _SCORES

    @property
    def key(self) -> str:
        return f"{self.metric.name}:predicted" if self.predicted else self.metric.name

    def value(self, row: Row) -> float | None:
        return row.predicted(self.metric) if self.predicted else row.mean(self.metric)

    def as_json(self) -> dict[str, Any]:
        header = f"{self.metric.header}, predicted" if self.predicted else self.metric.header
        return {
            "key": self.key,
            "metric": self.metric.name,
            "title": format.one_line(metrics.with_unit(header, self.metric.unit)),
            "unit": self.metric.unit,
            "decimals": self.metric.digits,
            "lower": self.metric.direction == "lower",
            "score": self.is_score,
        }


def axes_of(rows: Sequence[Row]) -> list[Axis]:
    """Axes for which any row has a value, in the order of the metrics, measured before predicted."""
    several_tasks = len({cell.task.name for row in rows for cell in row.cells}) > 1
    named = [metrics.get(name) for name in metrics.names() if name not in _ALIASES or several_tasks]
    every = [Axis(metric=m, predicted=p) for m in named for p in (False, True) if not p or m.predicted]
    return [axis for axis in every if any(axis.value(row) is not None for row in rows)]


def first_axes(spec: Spec, axes: Sequence[Axis]) -> dict[str, str | None]:
    """Keys of the cost ``x`` and the score ``y`` that the plot shows first: those of the spec, else usual ones."""
    keys = {axis.key for axis in axes}
    wanted = [key for name in (*spec.pareto.costs, spec.pareto.cost) for key in (name, f"{name}:predicted")]
    scores = (*spec.pareto.scores, spec.pareto.score, metrics.main(spec.task.name))
    return {
        "x": next((key for key in (*wanted, "params") if key in keys), None),
        "y": next((key for key in scores if key in keys), None),
    }


def rows_json(rows: Sequence[Row], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """One object per row, with the indices of its cells among those of all rows."""
    of_row = {row: eval_set for eval_set in eval_sets(rows) for row in eval_set.rows}
    places = iter(range(sum(len(row.cells) for row in rows)))
    return [_row_json(row, of_row[row], axes, [next(places) for _ in row.cells]) for row in rows]


def _row_json(row: Row, eval_set: EvalSet, axes: Sequence[Axis], places: Sequence[int]) -> dict[str, Any]:
    first, name = row.cells[0], eval_set.name
    # Where no label distinguishes the test sets, the filters need a key that does.
    unlabelled = {"test set": name} if name and not eval_set.distinguishing_labels else {}
    published = row.published.values if row.published else {}
    return {
        "label": visible(row.label, LABEL_LENGTH),
        "cells": places,
        **({"field": visible(name, LABEL_LENGTH)} if name else {}),
        "keys": {k: visible(v, LABEL_LENGTH) for k, v in (unlabelled | dict(row.parts) | first.labels).items()},
        "methods": sorted({action for action in row.parts.values() if action in first.methods}),
        "statuses": list(dict.fromkeys(_status(row, record) for record in row.records)),
        "status": visible(row.status, LABEL_LENGTH),
        "seeds": len(row.ok),
        "values": {axis.key: short(value) for axis in axes if (value := axis.value(row)) is not None},
        "published": {key: short(value) for key, value in published.items()},
    }


def _status(row: Row, record: CellRecord | None) -> str:
    if record is None:
        return "not run"
    return "stale" if record.cell_id in row.stale else str(record.status)


def short(value: float) -> float:
    """The value with seven significant digits, enough for any axis."""
    return float(f"{value:.7g}")


# --- baselines --------------------------------------------------------------------------------------------------


def baselines(row: Row, metric: Metric) -> dict[str, float]:
    """Title of a baseline -> its value in the metric's unit on the row's examples, in the order of the task."""
    record = next((record for record in row.ok if record.baseline_scores()), None)
    name = metrics.underlying_score(record, metric.name) if record else None
    if record is None or name is None:
        return {}
    scores = record.baseline_scores()
    origin = (metrics.baseline(record) or 0.0) if metric.name == "over_prior" else 0.0
    values = {
        title: metrics.in_unit(scores.get(key, {}).get(name), name)
        for key, title in metrics.baselines(record.task).items()
    }
    return {format.one_line(title): value - origin for title, value in values.items() if value is not None}


def baselines_json(rows: Sequence[Row], axes: Sequence[Axis]) -> dict[str, Any]:
    """Title of the first baseline and its value by each metric: of all rows if they are the same, else of each row.

    A row without a current result has those of its test set's other rows, and none in a test set without any.
    """
    known = {row: found for row in rows if (found := _first_baseline(row, axes))["values"]}
    of_row: dict[Row, dict[str, Any]] = {}
    for eval_set in eval_sets(rows):
        first, *others = [known[row] for row in eval_set.rows if row in known] or [_NO_BASELINE]
        shared = first if all(other == first for other in others) else _NO_BASELINE
        of_row |= {row: known.get(row, shared) for row in eval_set.rows}
    first = next(iter(known.values()), _NO_BASELINE)
    same = all(baseline == first for baseline in of_row.values())
    return {
        "called": first["called"],
        "values": first["values"] if same else {},
        "own": [] if same else [of_row[row] for row in rows],
    }


def _first_baseline(row: Row, axes: Sequence[Axis]) -> dict[str, Any]:
    by_key = {axis.key: baselines(row, axis.metric) for axis in axes if axis.is_score and not axis.predicted}
    title = next((next(iter(found)) for found in by_key.values() if found), _NO_BASELINE["called"])
    values = {key: short(next(iter(found.values()))) for key, found in by_key.items() if found}
    return {"called": title, "values": values}


# --- cells and records ------------------------------------------------------------------------------------------


def cells_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One object per cell, in the order of the rows: its identity, training curve and memory."""
    room = max(MIN_POINTS, MAX_POINTS // max(1, sum(len(row.cells) for row in rows)))
    return [
        {
            "id": cell.cell_id,
            "label": visible(cell.label, FIELD_LENGTH),
            "row": place,
            "status": f"stale ({why})" if (why := row.stale.get(cell.cell_id)) else _status(row, record),
            **({"curve": _curve(record, room), "memory": _memory(record)} if record else {}),
        }
        for place, row in enumerate(rows)
        for cell, record in zip(row.cells, row.records, strict=True)
    ]


def _curve(record: CellRecord, room: int) -> list[list[float]]:
    """[step, loss, learning rate]; of a long curve every n-th point and the last."""
    points = record.loss_curve
    every = -(-len(points) // room) or 1
    kept = [*points[:-1:every], points[-1]] if points else []
    return [[p.step + 1, float(f"{p.loss:.5g}"), float(f"{p.lr:.4g}")] for p in kept]


def _memory(record: CellRecord) -> dict[str, Any]:
    """Bytes of the predicted kinds of each phase and of the measured peaks, without unknown ones."""
    predicted, measured = record.estimate.memory if record.estimate else None, record.memory
    phases = {"train": predicted.train, "eval": predicted.eval} if predicted else {}
    peaks = {name: getattr(measured, name).allocated_peak_bytes for name in ("load", "train", "eval")}
    further = {
        "process": measured.nvml_process_peak_bytes,
        "host": measured.host_rss_peak_bytes,
        "context": predicted.context_bytes if predicted else None,
        "needed": predicted.process_peak_bytes if predicted else None,
    }
    return {
        # In the order of MEMORY_KINDS, then the reserved peak.
        "kinds": {
            name: [*(phase.by_kind.get(kind, 0) for kind in MEMORY_KINDS), phase.reserved_peak_bytes]
            for name, phase in phases.items()
            if phase
        },
        "measured": {name: size for name, size in peaks.items() if size is not None},
        **{name: size for name, size in further.items() if size is not None},
    }


def fields_json(records: Sequence[CellRecord | None]) -> dict[str, Any]:
    """``paths``, the ``common`` fields as [path, text], and each record's ``own`` as [index of path, text]."""
    flat = [dict(_fields(record)) if record else None for record in records]
    known = [fields for fields in flat if fields is not None]
    paths = list(dict.fromkeys(path for fields in known for path in fields))
    same = {path for path in paths if len({fields.get(path) for fields in known}) == 1} if len(known) > 1 else set()
    differing = [path for path in paths if path not in same]
    return {
        "paths": differing,
        "common": [[path, known[0][path]] for path in paths if path in same],
        "own": [[[i, of[p]] for i, p in enumerate(differing) if p in of] if of else [] for of in flat],
    }


def _fields(record: CellRecord) -> Iterator[tuple[str, str]]:
    content = record.model_dump(mode="json", by_alias=True, exclude=_ELSEWHERE, exclude_none=True)
    for name in _IDENTITY:
        content.get("settings", {}).pop(name, None)
    yield from _flat(content, "")


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    elif value is not None and value not in ({}, []):
        yield _cached_text(path), _cached_text(value) if isinstance(value, Hashable) else _text(value)


def _text(value: Any) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), FIELD_LENGTH)


_cached_text = lru_cache(maxsize=10_000, typed=True)(_text)  # most fields are the same in most records


def failures_json(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Cells that failed, with the end of their logs."""
    pairs = [pair for row in rows for pair in zip(row.cells, row.records, strict=True)]
    return [_failure(cell, record) for cell, record in pairs if record and record.status is not Status.OK]


def _failure(cell: Cell, record: CellRecord) -> dict[str, str]:
    error = record.error
    log = error.log_tail.expandtabs(4).splitlines()[-LOG_LINES:] if error else []
    return {
        "id": cell.cell_id,
        "label": visible(cell.label, FIELD_LENGTH),
        "status": visible(outcome(record), FIELD_LENGTH),
        "type": visible(error.type, FIELD_LENGTH) if error else "",
        "message": visible(error.message, 4 * FIELD_LENGTH) if error else "",
        "log": "\n".join(visible(line, LOG_LINE) for line in log),
    }

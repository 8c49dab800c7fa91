"""Every field of every record: what all cells have in common once, and what differs beside each cell."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from bench.analysis.rows import Row, outcome
from bench.format import visible
from bench.records.costs import PredictedPhase
from bench.records.record import CellRecord, Status
from bench.report.html.clean import log
from bench.spec.cell import Cell

LONGEST = 300
MOST_POINTS = 24_000
"""Of all training curves together."""
FEWEST_POINTS = 24
"""Of one training curve."""
_ELSEWHERE = {"loss_curve", "error", "cell_id", "label", "labels", "parts", "spec", "scale", "schema_version", "status"}
_IDENTITY = ("cell_id", "spec", "scale", "label", "labels", "parts", "seed")


def facts(records: Sequence[CellRecord | None]) -> dict[str, Any]:
    """``paths``, the ``common`` fields as [path, text], and of each record its ``own`` as [place of path, text]."""
    flat = [dict(_fields(record)) if record else None for record in records]
    known = [one for one in flat if one is not None]
    paths = list(dict.fromkeys(path for one in known for path in one))
    same = {path for path in paths if len({one.get(path) for one in known}) == 1} if len(known) > 1 else set()
    differing = [path for path in paths if path not in same]
    return {
        "paths": differing,
        "common": [[path, known[0][path]] for path in paths if path in same],
        "own": [[[i, one[p]] for i, p in enumerate(differing) if p in one] if one else [] for one in flat],
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
        yield _clean(path), _clean(value) if isinstance(value, Hashable) else _shown(value)


def _shown(value: Any) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST)


_clean = lru_cache(maxsize=10_000, typed=True)(_shown)
"""Most fields are the same in most records."""


def cells(groups: Sequence[Row]) -> list[dict[str, Any]]:
    """One object per cell, in the order of the groups: who it is, its training curve and its memory."""
    room = max(FEWEST_POINTS, MOST_POINTS // max(1, sum(len(group.cells) for group in groups)))
    return [
        _cell(cell, record, row, room, group.stale.get(cell.cell_id))
        for row, group in enumerate(groups)
        for cell, record in zip(group.cells, group.records, strict=True)
    ]


def _cell(cell: Cell, record: CellRecord | None, row: int, room: int, why_stale: str | None) -> dict[str, Any]:
    status = str(record.status) if record else "not run"
    if why_stale:
        status = f"stale ({why_stale})"
    return {
        "id": cell.cell_id,
        "label": visible(cell.label, LONGEST),
        "row": row,
        "status": status,
        **({"curve": _curve(record, room), "memory": _memory(record)} if record else {}),
    }


def _curve(record: CellRecord, room: int) -> list[list[float]]:
    """[step, loss, learning rate]; of a long curve every n-th point and the last."""
    points = record.loss_curve
    every = -(-len(points) // room) or 1
    kept = [*points[:-1:every], points[-1]] if points else []
    return [[p.step + 1, float(f"{p.loss:.5g}"), float(f"{p.lr:.4g}")] for p in kept]


def _memory(record: CellRecord) -> dict[str, Any]:
    """Bytes: the predicted kinds of each phase, and the measured peaks; what is not known is left out."""
    predicted = record.estimate.memory if record.estimate else None
    kinds = {"train": _kinds(predicted.train), "eval": _kinds(predicted.eval)} if predicted else {}
    measured = {
        phase: peaks.allocated_peak_bytes
        for phase, peaks in (("load", record.memory.load), ("train", record.memory.train), ("eval", record.memory.eval))
        if peaks.allocated_peak_bytes is not None
    }
    further = {
        "process": record.memory.nvml_process_peak_bytes,
        "host": record.memory.host_rss_peak_bytes,
        "context": predicted.context_bytes if predicted else None,
        "needed": predicted.process_peak_bytes if predicted else None,
    }
    return {
        "kinds": {phase: found for phase, found in kinds.items() if found},
        "measured": measured,
        **{name: size for name, size in further.items() if size is not None},
    }


def _kinds(phase: PredictedPhase | None) -> list[int]:
    """In the order of ``MEMORY_KINDS``, then the reserved peak."""
    from bench.records.costs import MEMORY_KINDS

    return [*(phase.by_kind.get(kind, 0) for kind in MEMORY_KINDS), phase.reserved_peak_bytes] if phase else []


def failures(groups: Sequence[Row]) -> list[dict[str, str]]:
    """Every cell that has a record and did not end well, with the end of its log."""
    found = [pair for group in groups for pair in zip(group.cells, group.records, strict=True)]
    return [_failure(cell, record) for cell, record in found if record and record.status is not Status.OK]


def _failure(cell: Cell, record: CellRecord) -> dict[str, str]:
    error = record.error
    return {
        "id": cell.cell_id,
        "label": visible(cell.label, LONGEST),
        "status": visible(outcome(record), LONGEST),
        "type": visible(error.type, LONGEST) if error else "",
        "message": visible(error.message, 4 * LONGEST) if error else "",
        "log": log(error.log_tail) if error else "",
    }

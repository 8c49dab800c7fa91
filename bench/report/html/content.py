"""All that the page says, as one JSON object; made of the records alone, in an order that never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, baselines_of, eval_sets
from bench.records.costs import MEMORY_KINDS
from bench.report.html import details, page_data, questions
from bench.report.html.thumbnails import Thumbnails
from bench.report.model import Table

if TYPE_CHECKING:
    from bench.spec.sections import Spec

HERE = Path(__file__).resolve().parent
STATISTICS = ("best.py", "predictions.py", "statistics.py")
"""Modules of `bench.analysis` that decide what the page says and are not part of its collected content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What is cheap to collect, and decides whether the page must be written anew."""

    table: Table
    groups: Sequence[Row]
    examples: ExampleScores
    axes: Sequence[page_data.Axis]
    questions: questions.Questions
    data: dict[str, Any]
    """For the page's script; lacks intervals and images."""

    @property
    def pictured(self) -> bool:
        """Whether any example has an image."""
        return any(question.image is not None for question in self.questions.shown)


def collect(spec: Spec, table: Table, groups: Sequence[Row], examples: ExampleScores) -> Collected:
    """Everything but statistics and images."""
    found = page_data.axes(groups)
    records = [record for group in groups for record in group.records]
    cells = details.cells(groups)
    counting = [None if r and r.cell_id in group.stale else r for group in groups for r in group.records]
    asked = questions.read(counting, examples.folder)
    cost, score = page_data.first_axes(spec, found)
    data = {
        "axes": [axis.as_json() for axis in found],
        "first": {"x": cost, "y": score},
        "rows": page_data.rows(groups, found, {cell["id"]: place for place, cell in enumerate(cells)}),
        "floors": page_data.floor_of(groups, found),
        "cells": cells,
        "kinds": [kind.replace("_", " ") for kind in MEMORY_KINDS],
        "facts": details.facts(records),
        "questions": asked.as_json(),
        "asked": {"total": asked.total, "problems": asked.problems},
    }
    return Collected(table=table, groups=groups, examples=examples, axes=found, questions=asked, data=data)


def digest(found: Collected) -> str:
    """SHA-256 of all that determines the page but the images: content, code, version of the plotting library."""
    told = json.dumps([found.data, _table(found.table), details.failures(found.groups)], ensure_ascii=True)
    return hashlib.sha256(b"\0".join([told.encode(), _sizes(found), _code(), _vega_version().encode()])).hexdigest()


def _sizes(found: Collected) -> bytes:
    """Of the files of predictions, which intervals are taken from as a whole."""
    records = [record for group in found.groups for record in group.records if record]
    paths = [questions.file_of(record, found.examples.folder) for record in records]
    return repr([path.stat().st_size if path and path.is_file() else None for path in paths]).encode()


def _table(table: Table) -> list[Any]:
    cells = [
        [row.label, row.status, [[e.text, e.published_text, e.deviation_text, e.best] for e in row.entries]]
        for row in table.rows
    ]
    return [
        table.spec,
        table.title,
        table.tag,
        table.caption,
        [c.header for c in table.columns],
        cells,
        table.footnotes,
    ]


@cache
def _code() -> bytes:
    """The page's own sources."""
    files = sorted(path for path in HERE.rglob("*") if path.suffix in (".py", ".js", ".css", ".html"))
    files += [HERE.parents[1] / "analysis" / name for name in STATISTICS]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).digest()


def _vega_version() -> str:
    # By the name of its metadata's folder: asking for it properly takes longer than the rest of a report.
    spec = find_spec("vl_convert")
    folder = Path(spec.origin).parents[1] if spec and spec.origin else None
    names = sorted(path.name for path in folder.glob("vl_convert_python-*.dist-info")) if folder else []
    return names[-1] if names else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """All of the page."""

    table: Table
    groups: Sequence[Row]
    data: dict[str, Any]
    summary: Sequence[Any]
    failures: Sequence[dict[str, str]]
    sources: Sequence[str]
    """Of each baseline in the table's order: id of a cell whose record holds it."""


def finish(found: Collected, thumbnails: Callable[[], Thumbnails]) -> Content:
    """Add intervals, images and the summary."""
    from bench.report.html import summary as words

    summary = words.summary(found.groups, found.examples)
    intervals = [words.intervals(group, found.axes, found.examples) for group in found.groups]
    images = thumbnails()
    shown = [row | {"intervals": own} for row, own in zip(found.data["rows"], intervals, strict=True)]
    data = found.data | {"rows": shown, "images": list(images.images), "note": images.note}
    data["questions"] = [
        question | ({"i": images.of[place]} if place in images.of else {})
        for place, question in enumerate(found.data["questions"])
    ]
    return Content(
        table=found.table,
        groups=found.groups,
        data=data,
        summary=summary,
        failures=details.failures(found.groups),
        sources=_sources(found.groups),
    )


def _sources(groups: Sequence[Row]) -> list[str]:
    told: list[str] = []
    for one in eval_sets(groups):
        for shown in baselines_of(one.rows)[:1]:
            ids = (record.cell_id for group in one.rows for record in group.ok if record.baseline_scores() == shown)
            told += [next(ids)] * len(shown)
    return told

"""One self-contained HTML page per spec, which opens offline."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files import not_regular
from bench.format import number
from bench.records.costs import MEMORY_KINDS
from bench.report import background

if TYPE_CHECKING:
    from bench.analysis.predictions import ExampleScores
    from bench.analysis.rows import Row
    from bench.report.html.page_data import Axis
    from bench.report.html.questions import Questions
    from bench.report.table import Table
    from bench.spec.sections import Spec

PAGE = "index.html"
HERE = Path(__file__).resolve().parent
ASSETS = HERE / "assets"
SCRIPTS = ("common", "filter", "front", "sorting", "curves", "memory", "questions", "cells", "main")
STATISTICS = ("best.py", "predictions.py", "statistics.py")
"""Modules of ``bench.analysis`` behind the intervals and the summary, which the digest cannot take from the data."""
_STAMP = re.compile(rb'<meta name="report" content="([0-9a-f]{64}) (with|without) its images">')


def page(spec: Spec, table: Table, rows: Sequence[Row], examples: ExampleScores, kept: Path) -> bytes | None:
    """The page; null if the file ``kept`` is up to date.

    ``rows``, ``table`` and ``examples`` are of the same spec, records and scale. Same input, same bytes; images are
    shown where the data set of the records is here.
    """
    from bench.report.html import page_data, questions, summary, thumbnails

    axes = page_data.axes_of(rows)
    current = [None if r and r.cell_id in row.stale else r for row in rows for r in row.records]
    asked = questions.read(current, examples.folder)
    data = collect(spec, rows, axes, asked)
    failures = page_data.failures_json(rows)
    digest = _digest([data, _texts(table), failures], _sizes(rows, examples))
    stamp = _stamp(kept)
    if stamp == (digest, True):
        return None
    images_of = thumbnails.start(asked.shown, {cell.cell_id: cell for row in rows for cell in row.cells})
    if stamp == (digest, False) and not images_of().images:
        return None
    bundle = start_bundling()
    statements = summary.summary(rows, examples)
    intervals = [summary.intervals(row, axes, examples) for row in rows]
    images = images_of()
    data["rows"] = [row | {"intervals": own} for row, own in zip(data["rows"], intervals, strict=True)]
    data["questions"] = [
        question | ({"i": images.of[place]} if place in images.of else {})
        for place, question in enumerate(data["questions"])
    ]
    data |= {"images": list(images.images), "note": images.note}
    complete = bool(images.images) or all(question.image is None for question in asked.shown)
    content = {"groups": rows, "summary": statements, "failures": failures, "sources": _baseline_sources(rows)}
    return _html(table, content, data, bundle(), f"{digest} {'with' if complete else 'without'} its images")


def start_bundling() -> Callable[[], str]:
    """Start bundling the plotting library; the returned function waits for the script."""
    return background.start("bundling the plotting library", background.vega_bundle)


def collect(spec: Spec, rows: Sequence[Row], axes: Sequence[Axis], asked: Questions) -> dict[str, Any]:
    """Data of the page's script without intervals and images."""
    # These take longest, and follow from the rest: whether a page is current is known without them.
    from bench.report.html import page_data

    return {
        "axes": [axis.as_json() for axis in axes],
        "first": page_data.first_axes(spec, axes),
        "rows": page_data.rows_json(rows, axes),
        "floors": page_data.baselines_json(rows, axes),
        "cells": page_data.cells_json(rows),
        "kinds": [kind.replace("_", " ") for kind in MEMORY_KINDS],
        "facts": page_data.fields_json([record for row in rows for record in row.records]),
        "questions": asked.as_json(),
        "asked": {"total": asked.total, "problems": asked.problems},
    }


def _texts(table: Table) -> list[Any]:
    lines = [
        [row.label, row.status, [[v.text, v.published_text, v.deviation_text, v.best] for v in row.values]]
        for row in table.rows
    ]
    headers = [column.header for column in table.columns]
    return [table.spec, table.title, table.tag, table.caption, headers, lines, table.footnotes]


def _sizes(rows: Sequence[Row], examples: ExampleScores) -> str:
    """Sizes of the files of predictions, which the intervals are computed from."""
    from bench.analysis.predictions import predictions_path

    paths = [predictions_path(record, examples.folder) for row in rows for record in row.records if record]
    return repr([path.stat().st_size if path and path.is_file() else None for path in paths])


def _digest(content: list[Any], sizes: str) -> str:
    """SHA-256 of content, code and version of the plotting library: all that determines the page but its images."""
    parts = [json.dumps(content), sizes, _code_digest(), _vega_version()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def _code_digest() -> str:
    sources = sorted(path for path in HERE.rglob("*") if path.suffix in (".py", ".js", ".css", ".html"))
    sources += [HERE.parents[1] / "analysis" / name for name in STATISTICS]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _vega_version() -> str:
    # By the name of its metadata's folder: asking for it properly takes longer than the rest of a report.
    spec = find_spec("vl_convert")
    folder = Path(spec.origin).parents[1] if spec and spec.origin else None
    names = sorted(path.name for path in folder.glob("vl_convert_python-*.dist-info")) if folder else []
    return names[-1] if names else ""


def _stamp(path: Path) -> tuple[str, bool] | None:
    """Digest of a stored page, and whether it has its images; null without a page."""
    try:
        if not_regular(path):
            return None
        with path.open("rb") as file:
            stamp = _STAMP.search(file.read(2048))
    except OSError:
        return None
    return (stamp[1].decode(), stamp[2] == b"with") if stamp else None


def _baseline_sources(rows: Sequence[Row]) -> list[str]:
    """For each baseline of the table, the id of a cell whose record holds it."""
    from bench.analysis.rows import baselines_of, eval_sets

    sources: list[str] = []
    for eval_set in eval_sets(rows):
        for shown in baselines_of(eval_set.rows)[:1]:
            ids = (r.cell_id for row in eval_set.rows for r in row.ok if r.baseline_scores() == shown)
            sources += [next(ids)] * len(shown)
    return sources


def _html(table: Table, content: Mapping[str, Any], data: Any, library: str, stamp: str) -> bytes:
    """The page from its template, with styles, scripts and the plotting ``library`` inline."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = [(ASSETS / f"{name}.js").read_text(encoding="utf-8").strip() for name in SCRIPTS]
    scripts = [library, "\n".join(['(() => {\n"use strict";', *own, "})();"])]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = (  # nothing is loaded or sent, and no other script runs
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template("page.html").render(
        content=content,
        table=table,
        number=number,
        stamp=stamp,
        policy=policy,
        style=(ASSETS / "style.css").read_text(encoding="utf-8"),
        scripts=scripts,
        data=safe_json(data),
    )
    return text.encode("utf-8", "replace")


def safe_json(value: Any) -> str:
    """ASCII JSON for a ``script`` element, which nothing in it can end."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

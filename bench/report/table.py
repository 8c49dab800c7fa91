"""From a spec and its records to the table that all exporters print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench import format, metrics
from bench.analysis.best import BestMarks, mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, baselines_of, eval_sets
from bench.analysis.statistics import interval
from bench.errors import SpecError
from bench.metrics import Metric
from bench.records.scores import Score
from bench.registry import did_you_mean
from bench.report import captions, inputs
from bench.report.model import Entry, Table, TableColumn, TableRow

if TYPE_CHECKING:
    from bench.spec.sections import Spec

USUAL_METRICS = ("params", "memory")
"""Columns of a spec that names none, before those of its task."""


def table_of(spec: Spec, scale: str, groups: Sequence[Row], examples: ExampleScores) -> Table:
    """Fill the spec's columns. Raises SpecError for a column that is no part, axis or metric."""
    columns = [_with_published(column, groups) for column in _columns(spec, groups)]
    marks = [mark_best(groups, column.metric, examples) if column.metric else BestMarks() for column in columns]
    rows = [_row(columns, marks, i, group, examples) for i, group in enumerate(groups)]
    return Table(
        spec=spec.name,
        title=format.one_line(spec.title or spec.name),
        scale=scale,
        tag=captions.tag(scale, groups),
        caption=captions.caption(scale, groups),
        columns=tuple(columns),
        rows=(*rows, *_baseline_rows(columns, groups)),
        footnotes=tuple(captions.footnotes(spec, groups, columns, marks)),
    )


def _columns(spec: Spec, groups: Sequence[Row]) -> list[TableColumn]:
    labels = list(dict.fromkeys(key for group in groups for key in group.labels))
    known = [*labels, "seed", "status", *metrics.names()]
    if not spec.columns:
        shown = dict.fromkeys(key for group in groups for key in (*group.parts, *group.cells[0].labels))
        return [_column(value, None, known) for value in (*shown, *USUAL_METRICS, *metrics.of_task(spec.task.name))]
    columns = [_column(column.value, column.header, known) for column in spec.columns]
    return columns if any(c.metric is None for c in columns) else [_column("cell", "Cell", ["cell"]), *columns]


def _column(value: str, header: str | None, known: list[str]) -> TableColumn:
    if value not in known:
        raise SpecError(f"no part, axis or metric is called {value!r}{did_you_mean(value, known)}")
    metric = metrics.get(value) if value in metrics.names() else None
    if metric is None:
        return TableColumn(value=value, header=format.one_line(header or value), metric=None)
    return TableColumn(
        value=value, header=format.one_line(metrics.with_unit(header or metric.header, metric.unit)), metric=metric
    )


def _with_published(column: TableColumn, groups: Sequence[Row]) -> TableColumn:
    found = any(group.published and column.value in group.published.values for group in groups)
    return replace(column, published=found and column.metric is not None)


def _row(
    columns: Sequence[TableColumn], marks: Sequence[BestMarks], place: int, group: Row, examples: ExampleScores
) -> TableRow:
    shown = group.as_recorded() if group.is_stale else group
    entries = [
        replace(
            _label_entry(column.value, group) if column.metric is None else _entry(column, shown, examples),
            best=place in found.best,
        )
        for column, found in zip(columns, marks, strict=True)
    ]
    return TableRow(
        label=group.label,
        entries=tuple(entries),
        status=group.status,
        seeds=len(shown.ok),
        stale=group.is_stale,
        implied=group.published.implied if group.published else None,
        warning=inputs.warning(shown),
    )


def _entry(column: TableColumn, group: Row, examples: ExampleScores) -> Entry:
    metric = column.metric
    assert metric is not None
    scores = [score for record in group.ok if metric.score and (score := metric.score(record))]
    printed = group.published.values.get(column.value) if group.published else None
    mean, predicted = group.mean(metric), group.predicted(metric)
    known = interval(group, metric, examples) if metric.rankable else None
    std = known.std if known else None
    return Entry(
        text=_value_text(mean, std, predicted, metric),
        value=mean,
        predicted=predicted,
        std=std,
        low=known.low if known else None,
        high=known.high if known else None,
        correct=_added(scores),
        n=sum(score.n for score in scores) if scores else None,
        published=printed,
        flagged=column.value == "global" and group.published is not None and group.published.implied is not None,
        digits=metric.digits,
    )


def _value_text(mean: float | None, std: float | None, predicted: float | None, metric: Metric) -> str:
    if mean is None and predicted is not None:
        return format.predicted(format.number(predicted, metric.digits))
    return format.spread(mean, std, metric.digits)


def _label_entry(value: str, group: Row) -> Entry:
    seeds = [cell.seed for cell in group.cells]
    own = {
        "seed": seeds[0] if len(seeds) == 1 else ", ".join(map(str, seeds)),
        "status": group.status or "ok",
        "cell": group.label,
    }
    raw = group.labels.get(value, own.get(value, ""))
    return Entry(text=format.one_line(raw), value=raw)


def _baseline_rows(columns: Sequence[TableColumn], groups: Sequence[Row]) -> list[TableRow]:
    """Of each field by itself."""
    rows = []
    for one in eval_sets(groups):
        found = (baselines_of(one.rows) or [{}])[0]
        names = metrics.baselines(one.task)
        for key in sorted(found, key=lambda key: list(names).index(key) if key in names else len(names)):
            called = names.get(key, format.one_line(key)) + (f", {one.name}" if one.name else "")
            rows.append(_baseline_row(columns, called, found[key], metrics.main(one.task)))
    return rows


def _added(scores: Sequence[Score]) -> int | None:
    """Numerators of shares, added over the seeds; null for scores that are no shares."""
    correct = [score.correct for score in scores if score.correct is not None]
    return sum(correct) if correct and len(correct) == len(scores) else None


def _baseline_row(columns: Sequence[TableColumn], name: str, scores: Mapping[str, Score], main: str) -> TableRow:
    """``main``: the metric that the column ``score`` shows."""
    first = next(column for column in columns if column.metric is None)
    entries = []
    for column in columns:
        if column.metric is None:
            entries.append(Entry(text=name if column is first else ""))
        else:
            own = metrics.get(main) if column.metric.name == metrics.SCORE else column.metric
            entries.append(_score_entry(scores.get(own.name), own))
    return TableRow(label=name, entries=tuple(entries), baseline=True)


def _score_entry(score: Score | None, metric: Metric) -> Entry:
    value = metrics.in_unit(score, metric.name)
    if score is None or value is None:
        return Entry(text=format.DASH if score else "")
    return Entry(
        text=format.number(value, metric.digits), value=value, correct=score.correct, n=score.n, digits=metric.digits
    )

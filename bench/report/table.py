"""The table that all renderers print: raw values and their texts, from the rows of a spec's cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench import format, metrics
from bench.analysis.best import BestMarks, mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, baselines_of, eval_sets
from bench.analysis.statistics import interval
from bench.errors import SpecError
from bench.metrics import Metric
from bench.records.scores import Score
from bench.registry import did_you_mean
from bench.report import captions
from bench.report.captions import TableColumn

if TYPE_CHECKING:
    from bench.spec.sections import Spec

USUAL_METRICS = ("params", "memory")
"""Metrics of a spec without columns, before those of its task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One row's value in one column: raw numbers, and the text that all renderers print."""

    text: str
    """The label, or the measured value, or the predicted one with its mark."""
    value: Any = None
    """Raw label, or mean over the seeds in the metric's unit; null if not measured."""
    predicted: float | None = None
    """Value by the estimates, in the metric's unit, also beside a measured value; null without estimates."""
    std: float | None = None
    """Standard deviation over the seeds; null with fewer than two."""
    low: float | None = None
    """Lower bound of the 95 % CI; null if unknown."""
    high: float | None = None
    correct: int | None = None
    """Numerator of a share, added over the seeds."""
    n: int | None = None
    """Denominator of the share, added over the seeds."""
    published: float | None = None
    best: bool = False
    """Whether it is the column's best value, or statistically tied with it."""
    flagged: bool = False
    """Whether the published value contradicts the row's other published values."""
    digits: int = 0

    @property
    def shows_prediction(self) -> bool:
        """Whether the text is the prediction, since nothing was measured."""
        return self.value is None and self.predicted is not None

    @property
    def deviation(self) -> float | None:
        """Measured minus published."""
        return None if self.value is None or self.published is None else self.value - self.published

    @property
    def published_text(self) -> str:
        return format.number(self.published, self.digits) + (format.FLAG if self.flagged else "")

    @property
    def deviation_text(self) -> str:
        if self.value is None and self.predicted is not None and self.published is not None:
            return format.predicted(format.deviation(self.predicted - self.published, self.digits))
        return format.deviation(self.deviation, self.digits)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One cell over its seeds, or a baseline."""

    label: str
    values: tuple[Value, ...]
    """One per column."""
    status: str = ""
    """How a cell failed; empty if it completed."""
    seeds: int = 0
    """Number of seeds behind the values."""
    baseline: bool = False
    stale: bool = False
    """Whether data, weights or versions have changed since it ran; such a row is grey and compared with nothing."""
    implied: float | None = None
    """See ``PublishedRow.implied``."""
    warning: str = ""
    """Why its scores are not held-out ones; empty otherwise."""

    @property
    def status_text(self) -> str:
        return self.status or ("" if self.baseline else "ok")


@dataclass(frozen=True, kw_only=True)
class Table:
    """One spec at one scale."""

    spec: str
    title: str
    scale: str
    tag: str
    """``DEMO`` and the like, printed with all numbers; empty for the paper's scale."""
    caption: str
    """Sentences that follow the title."""
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    footnotes: tuple[str, ...]

    @cached_property
    def with_status(self) -> bool:
        """Whether the renderers add a column of statuses."""
        return any(row.status for row in self.rows) and all(column.value != "status" for column in self.columns)

    @cached_property
    def with_published(self) -> bool:
        return any(column.published for column in self.columns)


def table_of(spec: Spec, scale: str, rows: Sequence[Row], examples: ExampleScores) -> Table:
    """Fill the spec's columns. Raises SpecError for a column that is no part, axis or metric."""
    columns = _columns(spec, rows)
    marks = [mark_best(rows, column.metric, examples) if column.metric else BestMarks() for column in columns]
    cells = [_row(columns, marks, place, row, examples) for place, row in enumerate(rows)]
    return Table(
        spec=spec.name,
        title=format.one_line(spec.title or spec.name),
        scale=scale,
        tag=captions.tag(scale, rows),
        caption=captions.caption(scale, rows),
        columns=tuple(columns),
        rows=(*cells, *_baseline_rows(columns, rows)),
        footnotes=tuple(captions.footnotes(spec, rows, columns, marks)),
    )


def _columns(spec: Spec, rows: Sequence[Row]) -> list[TableColumn]:
    labels = dict.fromkeys(key for row in rows for key in row.labels)
    known = [*labels, "seed", "status", *metrics.names()]
    named: list[tuple[str, str | None]] = [(column.value, column.header) for column in spec.columns]
    if not named:
        usual = dict.fromkeys(key for row in rows for key in (*row.parts, *row.cells[0].labels))
        named = [(value, None) for value in (*usual, *USUAL_METRICS, *metrics.of_task(spec.task.name))]
    columns = [_column(value, header, known, rows) for value, header in named]
    if any(column.metric is None for column in columns):
        return columns
    return [TableColumn(value="cell", header="Cell"), *columns]


def _column(value: str, header: str | None, known: list[str], rows: Sequence[Row]) -> TableColumn:
    if value not in known:
        raise SpecError(f"no part, axis or metric is called {value!r}{did_you_mean(value, known)}")
    if value not in metrics.names():
        return TableColumn(value=value, header=format.one_line(header or value))
    metric = metrics.get(value)
    return TableColumn(
        value=value,
        header=format.one_line(metrics.with_unit(header or metric.header, metric.unit)),
        metric=metric,
        published=any(row.published and value in row.published.values for row in rows),
    )


def _row(
    columns: Sequence[TableColumn], marks: Sequence[BestMarks], place: int, row: Row, examples: ExampleScores
) -> TableRow:
    shown = row.as_recorded() if row.is_stale else row
    values = [
        replace(_measured(metric, shown, examples), best=place in found.best)
        if (metric := column.metric)
        else _label(column.value, row)
        for column, found in zip(columns, marks, strict=True)
    ]
    return TableRow(
        label=row.label,
        values=tuple(values),
        status=row.status,
        seeds=len(shown.ok),
        stale=row.is_stale,
        implied=row.published.implied if row.published else None,
        warning=captions.warning(shown),
    )


def _measured(metric: Metric, row: Row, examples: ExampleScores) -> Value:
    scores = [score for record in row.ok if metric.score and (score := metric.score(record))]
    correct = [score.correct for score in scores if score.correct is not None]
    mean, predicted = row.mean(metric), row.predicted(metric)
    known = interval(row, metric, examples) if metric.rankable else None
    if mean is None and predicted is not None:
        text = format.predicted(format.number(predicted, metric.digits))
    else:
        text = format.spread(mean, known.std if known else None, metric.digits)
    return Value(
        text=text,
        value=mean,
        predicted=predicted,
        std=known.std if known else None,
        low=known.low if known else None,
        high=known.high if known else None,
        # A numerator of some seeds alone would not belong to the denominator of all.
        correct=sum(correct) if correct and len(correct) == len(scores) else None,
        n=sum(score.n for score in scores) if scores else None,
        published=row.published.values.get(metric.name) if row.published else None,
        flagged=metric.name == "global" and row.published is not None and row.published.implied is not None,
        digits=metric.digits,
    )


def _label(value: str, row: Row) -> Value:
    seeds = [cell.seed for cell in row.cells]
    own = {
        "seed": seeds[0] if len(seeds) == 1 else ", ".join(map(str, seeds)),
        "status": row.status or "ok",
        "cell": row.label,
    }
    raw = row.labels.get(value, own.get(value, ""))
    return Value(text=format.one_line(raw), value=raw)


def _baseline_rows(columns: Sequence[TableColumn], rows: Sequence[Row]) -> list[TableRow]:
    """The baselines of each set of comparable cells, in the order of its task."""
    baselines = []
    for eval_set in eval_sets(rows):
        scores = (baselines_of(eval_set.rows) or [{}])[0]
        names = metrics.baselines(eval_set.task)
        for key in sorted(scores, key=lambda key: list(names).index(key) if key in names else len(names)):
            label = names.get(key, format.one_line(key)) + (f", {eval_set.name}" if eval_set.name else "")
            values = _baseline_values(columns, label, scores[key], metrics.main(eval_set.task))
            baselines.append(TableRow(label=label, values=tuple(values), baseline=True))
    return baselines


def _baseline_values(columns: Sequence[TableColumn], label: str, scores: Mapping[str, Score], main: str) -> list[Value]:
    """``main``: the metric that the column ``score`` shows."""
    first = next(column for column in columns if column.metric is None)
    values = []
    for column in columns:
        if column.metric is None:
            values.append(Value(text=label if column is first else ""))
            continue
        metric = metrics.get(main) if column.metric.name == "score" else column.metric
        score = scores.get(metric.name)
        value = metrics.in_unit(score, metric.name)
        if score is None or value is None:
            values.append(Value(text=format.DASH if score else ""))
        else:
            text = format.number(value, metric.digits)
            values.append(Value(text=text, value=value, correct=score.correct, n=score.n, digits=metric.digits))
    return values

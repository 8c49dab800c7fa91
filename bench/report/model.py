"""The table that all exporters print: values, and the texts made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench import format
from bench.metrics import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class TableColumn:
    """One column of the spec."""

    value: str
    header: str
    metric: Metric | None
    """Null for a column of labels."""
    published: bool = False
    """Whether any row has a published value here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What stands in one row of one column: raw values, and the texts all exporters print."""

    text: str
    """The label, or the measured value, or the predicted one with its mark."""
    value: Any = None
    """Raw label, or mean over the seeds in the metric's unit; null if not measured."""
    predicted: float | None = None
    """What the estimates say, in the metric's unit; also beside a measured value; null without estimates."""
    std: float | None = None
    """Standard deviation over the seeds; null with fewer than two."""
    low: float | None = None
    """Bounds of the value's interval at 95 %; null where nothing is known of it."""
    high: float | None = None
    correct: int | None = None
    n: int | None = None
    """Numerator and denominator of a share, added over the seeds."""
    published: float | None = None
    best: bool = False
    """Whether it is the column's best value, or cannot be told from it."""
    flagged: bool = False
    """The published value does not agree with the row's other published values."""
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
        if self.shows_prediction and self.predicted is not None and self.published is not None:
            return format.predicted(format.deviation(self.predicted - self.published, self.digits))
        return format.deviation(self.deviation, self.digits)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One cell over its seeds, or a baseline."""

    label: str
    entries: tuple[Entry, ...]
    status: str = ""
    """What to say about a cell that did not end well; empty otherwise."""
    seeds: int = 0
    """Seeds the values were taken from."""
    baseline: bool = False
    stale: bool = False
    """Its values are of other data or model files than the cells now; shown in grey, compared with nothing."""
    implied: float | None = None
    """See ``PublishedRow.implied``."""
    warning: str = ""
    """Why its scores are not held-out ones; empty otherwise."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One spec at one scale."""

    spec: str
    title: str
    scale: str
    tag: str
    """``DEMO`` and the like, to be printed wherever numbers are; empty for the paper's scale."""
    caption: str
    """Sentences that follow the title."""
    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    footnotes: tuple[str, ...]

    @cached_property
    def with_status(self) -> bool:
        """Whether a column must say what happened."""
        return any(row.status for row in self.rows) and all(column.value != "status" for column in self.columns)

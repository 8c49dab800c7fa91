"""Does a run reproduce what the paper printed? A verdict per cell and column, each against a stated tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from bench import metrics
from bench.analysis.predictions import ExampleScores
from bench.analysis.published import Inconsistency, inconsistencies, is_comparable
from bench.analysis.rows import Row
from bench.analysis.statistics import interval
from bench.analysis.tolerances import Tolerance
from bench.metrics import Metric
from bench.spec.cell import Cell
from bench.spec.sections import Published, Spec

Verdict = Literal["reproduced", "off", "not measured", "not comparable"]
COUNTED = ("params", "params_trainable", "params_stored", "adapter_size")
"""Metrics that counting the adapted model answers, without a run."""
MEASURED = Tolerance(0.1, relative=True)
"""Papers hardly say which of the peaks of memory they print: the CUDA context counts in some, cached memory in some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCheck:
    """One published number against ours, in the metric's unit."""

    label: str
    metric: Metric
    published: float
    ours: float | None
    """Mean over the seeds; null if not measured."""
    predicted: float | None
    """The estimates' value, where nothing was measured."""
    tolerance: float | None
    """The largest deviation that reproduces it; null if there is nothing to compare."""
    rule: str
    """Source of the tolerance."""
    verdict: Verdict
    cells: tuple[str, ...]
    """Ids of the cells."""

    @property
    def off_by(self) -> float | None:
        return None if self.ours is None else self.ours - self.published


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """All published numbers of one spec at one scale."""

    spec: str
    scale: str
    source: str
    comparable: bool
    """Whether the scale may be the published setting."""
    counted: int
    """Cells whose parameters were counted for this, not by a run."""
    checks: list[PublishedCheck]
    inconsistencies: list[Inconsistency]

    @property
    def nothing_compared(self) -> bool:
        """Whether no published number was compared."""
        return not any(check.verdict in ("reproduced", "off") for check in self.checks)

    @property
    def exit_code(self) -> int:
        """1 if a number that can be compared is off, or none can be compared."""
        return int(self.nothing_compared or any(check.verdict == "off" for check in self.checks))


def reproduce(
    spec: Spec,
    scale: str,
    rows: Sequence[Row],
    examples: ExampleScores,
    tolerances: Mapping[str, Tolerance],
    *,
    counted: int = 0,
) -> Reproduction:
    """Every published number of the spec's cells, row by row; none if the spec has no published numbers.

    ``counted``: cells whose records have counts alone (see ``without_counts``).
    """
    digits = _printed_digits(spec.published)
    checks = [
        _check(row, metrics.get(name), value, _tolerance(row, metrics.get(name), value, examples, tolerances, digits))
        for row in rows
        if row.published
        for name, value in row.published.values.items()
    ]
    return Reproduction(
        spec=spec.name,
        scale=scale,
        source=spec.published.source if spec.published else "",
        comparable=is_comparable(spec.published, scale),
        counted=counted,
        checks=checks,
        inconsistencies=inconsistencies(spec.published, [row.labels for row in rows]),
    )


def without_counts(rows: Sequence[Row]) -> list[Cell]:
    """One cell of each row whose published parameters cannot be compared for want of any record of them."""
    return [
        row.cells[0]
        for row in rows
        if row.published is not None
        and row.published.comparable
        and any(name in COUNTED and row.mean(metrics.get(name)) is None for name in row.published.values)
    ]


def _printed_digits(published: Published | None) -> dict[str, int]:
    """Metric -> digits after the point with which the paper prints its column."""
    digits: dict[str, int] = {}
    for row in published.rows if published else []:
        for name in row.keys() & set(metrics.names()):
            value = metrics.get(name).published(row[name])
            after = -int(Decimal(str(value)).normalize().as_tuple().exponent) if value is not None else 0
            digits[name] = max(after, digits.get(name, 0))
    return digits


def _check(row: Row, metric: Metric, published: float, allowed: tuple[float, str]) -> PublishedCheck:
    comparable = row.published is not None and row.published.comparable
    ours, (tolerance, rule) = row.mean(metric), allowed
    verdict: Verdict = "not measured" if comparable else "not comparable"
    compared = comparable and ours is not None
    if compared and ours is not None:
        verdict = "reproduced" if abs(ours - published) <= tolerance + 1e-9 else "off"
    return PublishedCheck(
        label=row.label,
        metric=metric,
        published=published,
        ours=ours,
        predicted=row.predicted(metric) if ours is None else None,
        tolerance=tolerance if compared else None,
        rule=rule if compared else "",
        verdict=verdict,
        cells=tuple(cell.cell_id for cell in row.cells),
    )


def _tolerance(
    row: Row,
    metric: Metric,
    published: float,
    examples: ExampleScores,
    tolerances: Mapping[str, Tolerance],
    digits: Mapping[str, int],
) -> tuple[float, str]:
    """In the metric's unit, and by which rule; never less than what rounding hides.

    ``tolerances``: the user's; ``digits``: see ``_printed_digits``.
    """
    rounding, rule = 0.5 * 10.0 ** -digits[metric.name], "to the last digit printed"
    if own := tolerances.get(metric.name):
        return max(own.of(published), rounding), own.text(metric)
    if not metric.rankable:
        return rounding, rule
    if metric.score is None:
        return MEASURED.of(published), MEASURED.text(metric)
    known = interval(row, metric, examples)
    if known and known.low is not None and known.high is not None:
        return max((known.high - known.low) / 2, rounding), "half of our interval at 95 %"
    return rounding, rule

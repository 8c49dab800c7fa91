"""Does a run reproduce what the paper printed? A verdict per cell and column, each against a stated tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from bench import metrics
from bench.analysis.compare import tolerance
from bench.analysis.compare.inconsistencies import Inconsistency, inconsistencies
from bench.analysis.compare.tolerance import Tolerance
from bench.analysis.predictions import ExampleScores
from bench.analysis.published import is_comparable
from bench.analysis.rows import Row
from bench.analysis.statistics import interval
from bench.metrics import Metric

if TYPE_CHECKING:
    from bench.spec.cell import Cell
    from bench.spec.sections import Published, Spec

Outcome = Literal["reproduced", "off", "not measured", "not comparable"]
COUNTED = ("params", "params_trainable", "params_stored", "adapter_size")
"""Metrics that counting the adapted model answers, without a run."""
MEASURED = Tolerance(0.1, relative=True)
"""Papers hardly say which of the peaks of memory they print: the CUDA context counts in some, cached memory in some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One published number against ours, in the metric's unit."""

    label: str
    metric: Metric
    published: float
    ours: float | None
    """Mean over the seeds; null if not measured."""
    predicted: float | None
    """What the estimates say, where nothing was measured."""
    tolerance: float | None
    """How far ours may be off; null if there is nothing to compare."""
    rule: str
    """Where the tolerance comes from."""
    outcome: Outcome
    cells: tuple[str, ...]
    """Ids of the cells."""

    @property
    def off_by(self) -> float | None:
        return None if self.ours is None else self.ours - self.published


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """One spec at one scale."""

    spec: str
    scale: str
    source: str
    comparable: bool
    """Whether the scale may be the published setting."""
    counted: int
    """Cells whose parameters were counted for this, not by a run."""
    verdicts: list[Verdict]
    inconsistencies: list[Inconsistency]

    @property
    def nothing_compared(self) -> bool:
        """Whether no published number has a verdict."""
        return not any(verdict.outcome in ("reproduced", "off") for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """1 if a number that can be compared is off, or none can be compared."""
        return int(self.nothing_compared or any(verdict.outcome == "off" for verdict in self.verdicts))


def reproduce(
    spec: Spec,
    scale: str,
    groups: Sequence[Row],
    examples: ExampleScores,
    tolerances: Mapping[str, Tolerance],
    *,
    counted: int = 0,
) -> Reproduction:
    """Every published number of the spec's cells, row by row; none if the spec has no published numbers. ``counted``:
    cells whose records have counts alone (see ``without_counts``)."""
    digits = _printed_digits(spec.published)
    verdicts = [
        _verdict(group, metrics.get(name), value, _Allowance(group, examples, tolerances, digits[name]))
        for group in groups
        if group.published
        for name, value in group.published.values.items()
    ]
    return Reproduction(
        spec=spec.name,
        scale=scale,
        source=spec.published.source if spec.published else "",
        comparable=is_comparable(spec.published, scale),
        counted=counted,
        verdicts=verdicts,
        inconsistencies=inconsistencies(spec.published, [group.labels for group in groups]),
    )


def without_counts(groups: Sequence[Row]) -> list[Cell]:
    """One cell of each group whose published parameters cannot be compared for want of any record of them."""
    return [
        group.cells[0]
        for group in groups
        if group.published is not None
        and group.published.comparable
        and any(name in COUNTED and group.mean(metrics.get(name)) is None for name in group.published.values)
    ]


def _printed_digits(published: Published | None) -> dict[str, int]:
    """Metric -> digits behind the point with which the paper prints its column."""
    digits: dict[str, int] = {}
    for row in published.rows if published else []:
        for name in row.keys() & set(metrics.names()):
            value = metrics.get(name).published(row[name])
            behind = -int(Decimal(str(value)).normalize().as_tuple().exponent) if value is not None else 0
            digits[name] = max(behind, digits.get(name, 0))
    return digits


def _verdict(group: Row, metric: Metric, published: float, allowance: _Allowance) -> Verdict:
    comparable = group.published is not None and group.published.comparable
    ours = group.mean(metric)
    allowed, rule = allowance.of(metric, published)
    outcome: Outcome = "not measured" if comparable else "not comparable"
    if outcome == "not measured" and ours is not None:
        outcome = "reproduced" if abs(ours - published) <= allowed + 1e-9 else "off"
    compared = outcome in ("reproduced", "off")
    return Verdict(
        label=group.label,
        metric=metric,
        published=published,
        ours=ours,
        predicted=group.predicted(metric) if ours is None else None,
        tolerance=allowed if compared else None,
        rule=rule if compared else "",
        outcome=outcome,
        cells=tuple(cell.cell_id for cell in group.cells),
    )


@dataclass(frozen=True, slots=True)
class _Allowance:
    """How far ours may be off."""

    group: Row
    examples: ExampleScores
    tolerances: Mapping[str, Tolerance]
    """The user's."""
    digits: int

    def of(self, metric: Metric, published: float) -> tuple[float, str]:
        """In the metric's unit, and by which rule; never less than what rounding hides."""
        rounding = 0.5 * 10.0**-self.digits
        if own := self.tolerances.get(metric.name):
            return max(own.of(published), rounding), own.text(metric)
        if tolerance.is_exact(metric):
            return rounding, "to the last digit printed"
        if metric.score is not None:
            known = interval(self.group, metric, self.examples)
            if known and known.low is not None and known.high is not None:
                return max((known.high - known.low) / 2, rounding), "half of our interval at 95 %"
            return rounding, "to the last digit printed"
        return MEASURED.of(published), MEASURED.text(metric)

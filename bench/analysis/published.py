"""The numbers a paper printed: which cell they belong to, and whether they can be right as printed.

Two checks, both only where the spec gives the plausible numbers of questions (``published.counts``): the printed global
accuracy must be the mean of open and closed, weighted by them; and a printed share of n questions must be k / n for a
whole k (the GRIM test, Brown and Heathers 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench import format, metrics
from bench.spec.sections import Published

OWN_SCALES = ("paper", "default")
"""The spec as it stands: the published setting, or the user's own."""
ROUNDING = 0.005
"""Half of the last digit that papers print of a percentage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """Numbers printed for one cell."""

    values: Mapping[str, float]
    """Metric name -> value in the metric's unit."""
    implied: float | None
    """The global accuracy that open and closed imply, if it is not the printed one; null if they agree."""
    comparable: bool = True
    """Whether the cell's scale may be the published setting."""


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """A contradiction within one published row."""

    row: str
    """``vit F, jtm LoRA, dec LoRA, rank 4``."""
    metric: str
    problem: str


def find(published: Published | None, labels: Mapping[str, Any], scale: str) -> PublishedRow | None:
    """The first published row all of whose parts and axes agree with ``labels``."""
    for row in published.rows if published else []:
        if _matches(row, labels):
            values = _values(row)
            implied = implied_global(values, published.counts if published else None)
            return PublishedRow(values=values, implied=implied, comparable=is_comparable(published, scale))
    return None


def is_comparable(published: Published | None, scale: str) -> bool:
    """Whether numbers of this scale may be compared with the published ones."""
    return scale in OWN_SCALES or (published is not None and scale in published.scales)


def inconsistencies(published: Published | None, labels: Sequence[Mapping[str, Any]]) -> list[Inconsistency]:
    """All contradictions, row by row; a row that no cell matches counts as one.

    ``labels``: parts and axes of each cell of the spec.
    """
    found = []
    for row in published.rows if published else []:
        values, counts = _values(row), (published.counts if published else None) or {}
        name = ", ".join(f"{key} {format.one_line(value)}" for key, value in _named(row).items())
        if not any(_matches(row, cell) for cell in labels):
            found.append(Inconsistency(name, "", "no cell of the spec is this row's"))
        implied = implied_global(values, counts)
        if implied is not None:
            problem = f"printed {values['global']:.2f}; open and closed imply {implied:.2f}"
            found.append(Inconsistency(name, "global", problem))
        for metric, sizes in counts.items():
            value = values.get(metric)
            if value is not None and not any(_correct(value, n) for n in sizes):
                shown = f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else f"{sizes[0]}"
                problem = f"printed {value:.2f}, which no whole number of {shown} questions gives"
                found.append(Inconsistency(name, metric, problem))
    return found


def implied_global(values: Mapping[str, float], counts: Mapping[Any, list[int]] | None) -> float | None:
    """The global accuracy that the printed open and closed ones imply, nearest to the printed global.

    It is that of whole numbers of right answers, for any of the plausible numbers of questions; where there are none,
    the mean of the two as printed. Null if the mean agrees with the printed global within the rounding of the three
    numbers, or if anything is missing.
    """
    if not counts or not {"open", "closed", "global"} <= values.keys() or not {"open", "closed"} <= counts.keys():
        return None
    sizes = list(product(counts["open"], counts["closed"]))
    means = [
        (values["open"] * n_open + values["closed"] * n_closed) / (n_open + n_closed) for n_open, n_closed in sizes
    ]
    tolerance = 2 * ROUNDING + 1e-6
    if min(abs(mean - values["global"]) for mean in means) <= tolerance:
        return None
    exact = [
        100 * (k_open + k_closed) / (n_open + n_closed)
        for n_open, n_closed in sizes
        for k_open, k_closed in product(_correct(values["open"], n_open), _correct(values["closed"], n_closed))
    ]
    return min(exact or means, key=lambda implied: abs(implied - values["global"]))


def _correct(percent: float, n: int) -> list[int]:
    """Numbers of right answers of n whose share prints as this, rounded to two decimals or cut."""
    nearest = [k for k in (int(percent * n / 100) + step for step in (-1, 0, 1, 2)) if 0 <= k <= n]
    return [k for k in nearest if -ROUNDING - 1e-9 <= 100 * k / n - percent < 2 * ROUNDING + 2e-9]


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parts and axes of a published row."""
    return {key: value for key, value in row.items() if key not in metrics.names()}


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """The printed numbers of a published row, in their metrics' units."""
    printed = {key: metrics.get(key).published(value) for key, value in row.items() if key in metrics.names()}
    return {key: value for key, value in printed.items() if value is not None}


def _matches(row: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """``4`` matches ``4.0`` and ``"4"``."""
    named = _named(row).items()
    return all(key in labels and (labels[key] == value or str(labels[key]) == str(value)) for key, value in named)

"""The numbers a paper printed: which cell they belong to, and whether they agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench import metrics
from bench.spec.sections import Published

OWN_SCALES = ("paper", "default")
"""The spec as it stands: the published setting, or the user's own."""
ROUNDING = 0.005
"""Half of the last digit that papers print of a percentage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """What was printed for one cell."""

    values: Mapping[str, float]
    """Metric name -> value in the metric's unit."""
    implied: float | None
    """The global accuracy that open and closed imply, if it is not the printed one; null if they agree."""
    comparable: bool = True
    """Whether the cell's scale may be the published setting."""


def find(published: Published | None, labels: Mapping[str, Any], scale: str) -> PublishedRow | None:
    """The first published row all of whose parts and axes agree with ``labels``."""
    for row in published.rows if published else []:
        place = {key: value for key, value in row.items() if key not in metrics.names()}
        if all(key in labels and same(labels[key], value) for key, value in place.items()):
            values = {key: metrics.get(key).published(row[key]) for key in row if key not in place}
            known = {key: value for key, value in values.items() if value is not None}
            return PublishedRow(
                values=known,
                implied=implied_global(known, published.counts if published else None),
                comparable=is_comparable(published, scale),
            )
    return None


def is_comparable(published: Published | None, scale: str) -> bool:
    """Whether numbers of this scale may be compared with the published ones."""
    return scale in OWN_SCALES or (published is not None and scale in published.scales)


def same(ours: Any, theirs: Any) -> bool:
    """``4`` is ``4.0`` and ``"4"``."""
    return bool(ours == theirs) or str(ours) == str(theirs)


def implied_global(values: Mapping[str, float], counts: Mapping[Any, list[int]] | None) -> float | None:
    """The global accuracy of whole numbers of right answers that print as open and closed; where there are none, the
    mean of the two as printed. Of all plausible counts of questions the one that comes nearest to the printed global.

    Null if the mean agrees with it within the rounding of the three numbers, or if anything is missing.
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
        100 * (right_open + right_closed) / (n_open + n_closed)
        for n_open, n_closed in sizes
        for right_open, right_closed in product(right(values["open"], n_open), right(values["closed"], n_closed))
    ]
    return min(exact or means, key=lambda implied: abs(implied - values["global"]))


def right(percent: float, n: int) -> list[int]:
    """Numbers of right answers of n whose share prints as this, rounded to two decimals or cut."""
    nearest = [k for k in (int(percent * n / 100) + step for step in (-1, 0, 1, 2)) if 0 <= k <= n]
    return [k for k in nearest if -ROUNDING - 1e-9 <= 100 * k / n - percent < 2 * ROUNDING + 2e-9]

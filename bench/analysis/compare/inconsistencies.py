"""Published rows that cannot be right as printed, whatever was run.

Two checks, both only where the spec gives the plausible numbers of questions (``published.counts``): the printed global
accuracy must be the mean of open and closed, weighted by them; and a printed share of n questions must be k / n for a
whole k (the GRIM test, Brown and Heathers 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import format, metrics
from bench.analysis.published import implied_global, right, same
from bench.spec.sections import Published


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """What does not fit in one published row."""

    row: str
    """``vit F, jtm LoRA, dec LoRA, rank 4``."""
    metric: str
    problem: str


def inconsistencies(published: Published | None, labels: Sequence[Mapping[str, Any]]) -> list[Inconsistency]:
    """All of a spec, row by row. ``labels``: parts and axes of each of its cells; a row that fits none is one, too."""
    found = []
    for row in published.rows if published else []:
        place = {key: value for key, value in row.items() if key not in metrics.names()}
        named = ", ".join(f"{key} {format.one_line(value)}" for key, value in place.items())
        if not any(all(key in cell and same(cell[key], value) for key, value in place.items()) for cell in labels):
            found.append(Inconsistency(named, "", "no cell of the spec is this row's"))
        values = {key: metrics.get(key).published(row[key]) for key in row if key not in place}
        known = {key: value for key, value in values.items() if value is not None}
        implied = implied_global(known, published.counts if published else None)
        if implied is not None:
            told = f"printed {known['global']:.2f}; open and closed imply {implied:.2f}"
            found.append(Inconsistency(named, "global", told))
        found += [Inconsistency(named, name, told) for name, told in _impossible(published, row)]
    return found


def _impossible(published: Published | None, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, sizes in ((published.counts if published else None) or {}).items():
        value = metrics.get(name).published(row.get(name))
        if value is not None and not any(right(value, n) for n in sizes):
            shown = f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else f"{sizes[0]}"
            found.append((name, f"printed {value:.2f}, which no whole number of {shown} questions gives"))
    return found

"""The rows of the page: each group of cells with its values by every metric that any of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import format, metrics
from bench.analysis.rows import EvalSet, Row, eval_sets
from bench.format import visible
from bench.metrics import Metric
from bench.report.html.floors import floors

if TYPE_CHECKING:
    from bench.records.record import CellRecord
    from bench.spec.sections import Spec

NOT_RUN = "not run"
STALE = "stale"
_WITHOUT = ("score", "memory_predicted")
"""Metrics that are others under a second name."""
_SCORES = ("score", "over_prior", "loss")
"""Metrics of what was won, beside those of the tasks."""
LABEL_LENGTH = 160
_NO_PRIOR: dict[str, Any] = {"called": "the prior", "values": {}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """What an axis of the plot can show."""

    metric: Metric
    predicted: bool

    @property
    def score(self) -> bool:
        """Whether it says what was won, not what it cost."""
        return self.metric.score is not None or self.metric.name in _SCORES

    @property
    def key(self) -> str:
        return f"{self.metric.name}:predicted" if self.predicted else self.metric.name

    def value(self, group: Row) -> float | None:
        return group.predicted(self.metric) if self.predicted else group.mean(self.metric)

    def as_json(self) -> dict[str, Any]:
        header = f"{self.metric.header}, predicted" if self.predicted else self.metric.header
        return {
            "key": self.key,
            "metric": self.metric.name,
            "title": format.one_line(metrics.with_unit(header, self.metric.unit)),
            "unit": self.metric.unit,
            "decimals": self.metric.digits,
            "lower": self.metric.direction == "lower",
            "score": self.score,
        }


def axes(groups: Sequence[Row]) -> list[Axis]:
    """Those for which any group has a value, in the order of the metrics; measured before predicted."""
    several_tasks = len({cell.task.name for group in groups for cell in group.cells}) > 1
    named = [metrics.get(name) for name in metrics.names() if name not in _WITHOUT or several_tasks]
    every = [Axis(metric=m, predicted=p) for m in named for p in (False, True) if not p or m.predicted]
    return [axis for axis in every if any(axis.value(group) is not None for group in groups)]


def first_axes(spec: Spec, found: Sequence[Axis]) -> tuple[str | None, str | None]:
    """The cost and the score that the plot shows first: those of the spec, measured if they were."""
    keys = {axis.key for axis in found}
    wanted = [key for name in (*spec.pareto.costs, spec.pareto.cost) for key in (name, f"{name}:predicted")]
    costs = [key for key in (*wanted, "params") if key in keys]
    scores = [key for key in (*spec.pareto.scores, spec.pareto.score, metrics.main(spec.task.name)) if key in keys]
    return next(iter(costs), None), next(iter(scores), None)


def rows(groups: Sequence[Row], found: Sequence[Axis], places: Mapping[str, int]) -> list[dict[str, Any]]:
    """One object per group; ``places`` are those of the cells by id."""
    fields = {group.label: one for one in eval_sets(groups) for group in one.rows}
    return [_row(group, fields[group.label], found, places) for group in groups]


def _row(group: Row, field: EvalSet, found: Sequence[Axis], places: Mapping[str, int]) -> dict[str, Any]:
    parts = dict(group.parts)
    values = {axis.key: value for axis in found if (value := axis.value(group)) is not None}
    statuses = dict.fromkeys(_status(group, record) for record in group.records)
    published = group.published.values if group.published else {}
    return {
        "label": visible(group.label, LABEL_LENGTH),
        "cells": [places[cell.cell_id] for cell in group.cells],
        **({"field": visible(field.name, LABEL_LENGTH)} if field.name else {}),
        "keys": {k: visible(v, LABEL_LENGTH) for k, v in (_unnamed(field) | parts | group.cells[0].labels).items()},
        "methods": sorted({action for action in parts.values() if action in group.cells[0].methods}),
        "statuses": list(statuses),
        "status": visible(group.status, LABEL_LENGTH),
        "seeds": len(group.ok),
        "values": {key: short(value) for key, value in values.items()},
        "published": {key: short(value) for key, value in published.items()},
    }


def _status(group: Row, record: CellRecord | None) -> str:
    if record is None:
        return NOT_RUN
    return STALE if record.cell_id in group.stale else str(record.status)


def _unnamed(field: EvalSet) -> dict[str, str]:
    """To filter by where no label tells the fields apart."""
    return {"test set": field.name} if field.name and not field.distinguishing_labels else {}


def floor_of(groups: Sequence[Row], found: Sequence[Axis]) -> dict[str, Any]:
    """What the prior is called, and its score by each metric: of all groups if it is the same, else of each its own.

    A group without a current result has that of its field's others, and none in a field without any.
    """
    known = {group.label: one for group in groups if (one := _priors(group, found))["values"]}
    own: dict[str, dict[str, Any]] = {}
    for field in eval_sets(groups):
        theirs = [known[group.label] for group in field.rows if group.label in known]
        shared = theirs[0] if theirs and all(one == theirs[0] for one in theirs) else _NO_PRIOR
        own |= {group.label: known.get(group.label, shared) for group in field.rows}
    first = next(iter(known.values()), _NO_PRIOR)
    same = all(one == first for one in own.values())
    return {
        "called": first["called"],
        "values": first["values"] if same else {},
        "own": [] if same else [own[group.label] for group in groups],
    }


def _priors(group: Row, found: Sequence[Axis]) -> dict[str, Any]:
    named = {axis.key: floors(group, axis.metric) for axis in found if axis.score and not axis.predicted}
    called = next((next(iter(one)) for one in named.values() if one), _NO_PRIOR["called"])
    return {"called": called, "values": {key: short(next(iter(one.values()))) for key, one in named.items() if one}}


def short(value: float) -> float:
    """Enough digits for any axis."""
    return float(f"{value:.7g}")

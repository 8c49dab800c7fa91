"""A row of the table: the cells that differ in their seeds only, and the records there are of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench import format
from bench.analysis import published
from bench.metrics import Metric
from bench.records.record import CellRecord, Status
from bench.records.scores import Score
from bench.spec.cell import FROZEN
from bench.spec.matrix import VARIANT_AXIS
from bench.units import gib

if TYPE_CHECKING:
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

_STATUS = {Status.OOM: "OOM"}
_UNIT_OF_STEP = {"eval": "batch"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """The cells that differ in their seeds only, with their records; equal to itself alone, so that it can be a key."""

    label: str
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part -> action; a part that only other cells of the model name is frozen in this one."""
    labels: Mapping[str, Any]
    """Parts and axes."""
    cells: tuple[Cell, ...]
    """One per seed."""
    records: tuple[CellRecord | None, ...]
    published: published.PublishedRow | None
    stale: Mapping[str, str] = field(default_factory=dict)
    """Id of a cell -> why its result is not that of the cell as it is now; such a result counts nowhere."""
    asked: str = ""
    """Task and test data; scores of groups that were asked the same can be compared."""

    @property
    def current(self) -> tuple[CellRecord, ...]:
        """The records that count."""
        return tuple(record for record in self.records if record and record.cell_id not in self.stale)

    @property
    def ok(self) -> tuple[CellRecord, ...]:
        return tuple(record for record in self.current if record.status is Status.OK)

    @property
    def is_stale(self) -> bool:
        """Whether it has nothing but stale results."""
        return not self.current and any(self.records)

    def as_recorded(self) -> Row:
        """The same as if its records counted, to show what they say."""
        return replace(self, stale={})

    def outcome(self, record: CellRecord | None) -> str:
        """How one of its cells ended; empty if well."""
        why = self.stale.get(record.cell_id) if record else None
        return f"stale ({why})" if why else outcome(record)

    @property
    def status(self) -> str:
        """Empty if all seeds ended well."""
        ends = sorted({self.outcome(record) for record in self.records} - {""})
        share = f"{len(self.ok)} of {format.counted(len(self.records), 'seed')}; " if self.ok else ""
        return share + "; ".join(ends) if ends else ""

    def mean(self, metric: Metric) -> float | None:
        """Over the seeds; null if not measured."""
        return _mean(self.values(metric))

    def predicted(self, metric: Metric) -> float | None:
        """What the estimates say, over the seeds; null without estimates, or if they say nothing of this metric."""
        if metric.predicted is None:
            return None
        values = [value for r in self.current if (value := metric.predicted(r)) is not None]
        return _mean(values)

    def values(self, metric: Metric) -> list[float]:
        """Measured values. Of a cell that did not end well only what its pattern decides counts as measured."""
        records = self.current if not metric.rankable else self.ok
        return [value for r in records if (value := metric.value(r)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    """Null without any; with one seed, as mostly, without the exact summation."""
    return float(values[0]) if len(values) == 1 else statistics.fmean(values) if values else None


def rows_of(
    spec: Spec, cells: Sequence[Cell], records: Mapping[str, CellRecord], stale: Mapping[str, str] | None = None
) -> list[Row]:
    """Groups in the order of the cells; ``stale``: see ``Row.stale``."""
    groups: dict[str, list[Cell]] = {}
    named: dict[tuple[str, Any], dict[str, None]] = {}
    for cell in cells:
        groups.setdefault(cell.label.removesuffix(f" seed={cell.seed}"), []).append(cell)
    for cell in sorted(cells, key=lambda cell: -len(cell.parts)):  # who names all parts knows their order
        named.setdefault(_model(cell), {}).update(dict.fromkeys(cell.parts))
    found = [_group(spec, label, members, records, named[_model(members[0])]) for label, members in groups.items()]
    return [replace(group, stale=stale) for group in found] if stale else found


def _model(cell: Cell) -> tuple[str, Any]:
    return cell.model.family, cell.labels.get(VARIANT_AXIS)


def _group(spec: Spec, label: str, cells: list[Cell], records: Mapping[str, CellRecord], named: Iterable[str]) -> Row:
    first, matrix = cells[0], spec.matrix
    parts = {part: first.parts.get(part, FROZEN) for part in named}
    short = {place: matrix.names.get(place, place.rsplit(".", 1)[-1]) for place in (*matrix.axes, *matrix.names)}
    places = {place: first.labels[name] for place, name in short.items() if name in first.labels}
    labels = parts | first.labels | places
    return Row(
        label=format.one_line(label),
        parts=parts,
        labels=labels,
        cells=tuple(cells),
        records=tuple(records.get(cell.cell_id) for cell in cells),
        published=published.find(spec.published, labels, first.scale),
        asked=f"{first.task!r} {first.data.model_dump_json(exclude={'train_split', 'train_limit'})}",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """Groups whose scores can be compared: of one task, on the same examples."""

    distinguishing_labels: Mapping[str, Any]
    """Labels that all its cells, and not all others, have in common; empty if there is no other field."""
    name: str
    """Their values; the name of the data set if there are none, and empty if there is no other field."""
    task: str
    rows: tuple[Row, ...]

    def short(self, label: str) -> str:
        """The label of a group without what all groups of the field have in common."""
        for key, value in self.distinguishing_labels.items():
            label = label.replace(" " + format.one_line(f"{key}={value}"), "", 1)
        return label


def eval_sets(groups: Sequence[Row]) -> list[EvalSet]:
    """In the order of their first groups."""
    found: dict[str, list[Row]] = {}
    for group in groups:
        found.setdefault(group.asked, []).append(group)
    return [_field(own, groups) for own in found.values()]


def _field(own: Sequence[Row], groups: Sequence[Row]) -> EvalSet:
    cell = own[0].cells[0]
    if len(own) == len(groups):
        return EvalSet(distinguishing_labels={}, name="", task=cell.task.name, rows=tuple(own))
    telling = {
        key: value
        for key, value in cell.labels.items()
        if all(group.cells[0].labels.get(key) == value for group in own)
        and any(group.cells[0].labels.get(key) != value for group in groups)
    }
    name = ", ".join(format.one_line(value) for value in telling.values()) or cell.data.name
    return EvalSet(distinguishing_labels=telling, name=name, task=cell.task.name, rows=tuple(own))


def baselines_of(groups: Sequence[Row]) -> list[dict[str, dict[str, Score]]]:
    """The distinct sets of baselines that the records hold; one, unless cells were scored on different questions."""
    distinct: list[dict[str, dict[str, Score]]] = []
    for group in groups:
        for record in group.ok:
            found = record.baseline_scores()
            if found and found not in distinct:
                distinct.append(found)
    return distinct


def outcome(record: CellRecord | None) -> str:
    """``OOM (train, step 3)``, ``skipped (needs ≈ 26.31 GiB)``, ``not run``; empty for a cell that ended well."""
    if record is None:
        return "not run"
    if record.status is Status.OK:
        return ""
    word, error = _STATUS.get(record.status, record.status.value), record.error
    if record.status is Status.SKIPPED and record.estimate and record.estimate.memory:
        return f"{word} (needs {format.predicted(gib(record.estimate.memory.process_peak_bytes))} GiB)"
    if error is None:
        return word
    if record.status is Status.ERROR:
        word = f"{word}: {format.one_line(error.type)}"
    where = [error.phase] if error.phase else []
    if error.step is not None:
        where.append(f"{_UNIT_OF_STEP.get(error.phase or '', 'step')} {error.step}")
    where += ["beside other processes"] if record.status.is_result and not record.is_final else []
    return f"{word} ({', '.join(where)})" if where else word

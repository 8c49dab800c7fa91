"""Rows of a table: the cells that differ in their seeds only, with their records; and which rows are comparable."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench import format
from bench.analysis import published
from bench.metrics import Metric
from bench.records.record import CellRecord, Status
from bench.records.scores import Score
from bench.spec.cell import FROZEN, Cell
from bench.spec.matrix import VARIANT_AXIS
from bench.spec.sections import Spec
from bench.units import gib


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
    eval_key: str = ""
    """Task and test data; rows with the same key have comparable scores."""

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
        """The row as if its stale records counted, to show their values."""
        return replace(self, stale={})

    def outcome(self, record: CellRecord | None) -> str:
        """How one of its cells ended; empty if it completed."""
        why = self.stale.get(record.cell_id) if record else None
        return f"stale ({why})" if why else outcome(record)

    @property
    def status(self) -> str:
        """Empty if all seeds completed."""
        ends = sorted({self.outcome(record) for record in self.records} - {""})
        share = f"{len(self.ok)} of {format.counted(len(self.records), 'seed')}; " if self.ok else ""
        return share + "; ".join(ends) if ends else ""

    def mean(self, metric: Metric) -> float | None:
        """Mean over the seeds; null if not measured."""
        return _mean(self.values(metric))

    def predicted(self, metric: Metric) -> float | None:
        """Mean of the estimates over the seeds; null where they do not predict this metric."""
        if metric.predicted is None:
            return None
        return _mean([value for r in self.current if (value := metric.predicted(r)) is not None])

    def values(self, metric: Metric) -> list[float]:
        """Measured values; of a cell that did not complete only what its pattern decides counts as measured."""
        records = self.current if not metric.rankable else self.ok
        return [value for r in records if (value := metric.value(r)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    # With one seed, as mostly, the exact summation of fmean is not worth its time.
    return float(values[0]) if len(values) == 1 else statistics.fmean(values) if values else None


def rows_of(
    spec: Spec, cells: Sequence[Cell], records: Mapping[str, CellRecord], stale: Mapping[str, str] | None = None
) -> list[Row]:
    """Rows in the order of the cells; ``records`` by ``cell_id``; ``stale``: see ``Row.stale``."""
    by_label: dict[str, list[Cell]] = {}
    parts: dict[tuple[str, Any], dict[str, None]] = {}
    for cell in cells:
        by_label.setdefault(cell.label.removesuffix(f" seed={cell.seed}"), []).append(cell)
    for cell in sorted(cells, key=lambda cell: -len(cell.parts)):  # a cell that names all parts knows their order
        parts.setdefault(_model(cell), {}).update(dict.fromkeys(cell.parts))
    names = spec.matrix.names
    short = {key: names.get(key, key.rsplit(".", 1)[-1]) for key in (*spec.matrix.axes, *names)}
    rows = []
    for label, seeds in by_label.items():
        first = seeds[0]
        actions = {part: first.parts.get(part, FROZEN) for part in parts[_model(first)]}
        axes = {key: first.labels[name] for key, name in short.items() if name in first.labels}
        labels = actions | first.labels | axes
        row = Row(
            label=format.one_line(label),
            parts=actions,
            labels=labels,
            cells=tuple(seeds),
            records=tuple(records.get(cell.cell_id) for cell in seeds),
            published=published.find(spec.published, labels, first.scale),
            stale=stale or {},
            eval_key=f"{first.task!r} {first.data.model_dump_json(exclude={'train_split', 'train_limit'})}",
        )
        rows.append(row)
    return rows


def _model(cell: Cell) -> tuple[str, Any]:
    return cell.model.family, cell.labels.get(VARIANT_AXIS)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSet:
    """Rows whose scores are comparable: of one task, on the same examples."""

    distinguishing_labels: Mapping[str, Any]
    """Labels that all its cells, and not all others, have in common; empty if there is no other set."""
    name: str
    """Their values; the name of the data set if there are none, and empty if there is no other set."""
    task: str
    rows: tuple[Row, ...]

    def short(self, label: str) -> str:
        """The label of a row without what all rows of the set have in common."""
        for key, value in self.distinguishing_labels.items():
            label = label.replace(" " + format.one_line(f"{key}={value}"), "", 1)
        return label


def eval_sets(rows: Sequence[Row]) -> list[EvalSet]:
    """In the order of their first rows."""
    by_key: dict[str, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.eval_key, []).append(row)
    return [_eval_set(members, rows) for members in by_key.values()]


def _eval_set(members: Sequence[Row], rows: Sequence[Row]) -> EvalSet:
    cell = members[0].cells[0]
    if len(members) == len(rows):
        return EvalSet(distinguishing_labels={}, name="", task=cell.task.name, rows=tuple(members))
    labels = {
        key: value
        for key, value in cell.labels.items()
        if all(row.cells[0].labels.get(key) == value for row in members)
        and any(row.cells[0].labels.get(key) != value for row in rows)
    }
    name = ", ".join(format.one_line(value) for value in labels.values()) or cell.data.name
    return EvalSet(distinguishing_labels=labels, name=name, task=cell.task.name, rows=tuple(members))


def baselines_of(rows: Sequence[Row]) -> list[dict[str, dict[str, Score]]]:
    """The distinct sets of baselines that the records hold; one, unless cells were scored on different questions."""
    distinct: list[dict[str, dict[str, Score]]] = []
    for row in rows:
        for record in row.ok:
            found = record.baseline_scores()
            if found and found not in distinct:
                distinct.append(found)
    return distinct


def outcome(record: CellRecord | None) -> str:
    """``OOM (train, step 3)``, ``skipped (needs ≈ 26.31 GiB)``, ``not run``; empty for a cell that completed."""
    if record is None:
        return "not run"
    if record.status is Status.OK:
        return ""
    word, error = "OOM" if record.status is Status.OOM else record.status.value, record.error
    if record.status is Status.SKIPPED and record.estimate and record.estimate.memory:
        return f"{word} (needs {format.predicted(gib(record.estimate.memory.process_peak_bytes))} GiB)"
    if error is None:
        return word
    if record.status is Status.ERROR:
        word = f"{word}: {format.one_line(error.type)}"
    where = [error.phase] if error.phase else []
    if error.step is not None:
        where.append(f"{'batch' if error.phase == 'eval' else 'step'} {error.step}")
    where += ["beside other processes"] if record.status.is_result and not record.is_final else []
    return f"{word} ({', '.join(where)})" if where else word

"""What changed between two sets of records, or between one cell and the others, beyond noise.

A cost changes if it differs by more than its tolerance and its own spread; a score if a paired test says so, corrected
for the number of tests.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import ValidationError

from bench import metrics
from bench.analysis.frame import leaves
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row
from bench.analysis.statistics import difference, holm
from bench.analysis.tolerances import CompareOptions
from bench.errors import SpecError
from bench.metrics import Metric
from bench.records.record import CellRecord, Status
from bench.registry import did_you_mean
from bench.sources import Source, StoredRecord
from bench.spec.cell import DETERMINING, Cell
from bench.spec.diagnostics import quoted

COSTS = (
    "params",
    "params_trainable",
    "adapter_size",
    "memory",
    "memory_reserved",
    "memory_eval",
    "memory_nvml",
    "memory_host",
    "step_time",
    "energy",
)
"""Compared unless ``--metrics`` names others; before the scores of the records' task."""
SAME = 1e-9
"""Exact values that differ by less, relatively, differ by floating-point rounding."""
Kind = Literal["exact", "measured", "score"]
"""Of metrics: decided by the freeze pattern alone; measured on the device of a run; a score."""
Verdict = Literal["worse", "better", "within noise", "not measured", "not comparable"]
Key = tuple[str, str, str, int]
"""Spec, scale, label without the seed, and seed of a record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One cell with one seed on both sides; or another cell (A) and this one (B), with the same seed."""

    a: StoredRecord
    b: StoredRecord

    @property
    def status_verdict(self) -> str:
        """``worse`` from ``ok`` to another status, ``better`` back, ``changed`` between failures; empty if equal."""
        a, b = self.a.record.status, self.b.record.status
        if a is b:
            return ""
        return "worse" if a is Status.OK else "better" if b is Status.OK else "changed"


@dataclass(frozen=True, slots=True)
class SettingDiff:
    """Something that makes two runs of a cell different experiments."""

    what: str
    """``device``, ``data``, ``weights``, or the dotted key of a setting."""
    a: str
    b: str
    hides: tuple[Kind, ...]
    """What cannot be compared because of it; if empty, it may only explain a change."""

    def __str__(self) -> str:
        return f"{self.what}: {self.a} → {self.b}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One metric of one row, in the metric's unit; means over the seeds that both sides measured."""

    metric: Metric
    a: float | None
    b: float | None
    verdict: Verdict
    reason: str = ""
    """Why it was not compared, or how."""
    noise: float | None = None
    """Of a cost: the largest change that means nothing."""
    low: float | None = None
    high: float | None = None
    """Of a score: the change's 95 % interval."""
    p: float | None = None
    """Of a score, corrected for the number of tests."""

    @property
    def change(self) -> float | None:
        return None if self.a is None or self.b is None else self.b - self.a


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRow:
    """The cells that differ in their seeds only, as far as both sides have them."""

    spec: str
    scale: str
    label: str
    pairs: tuple[Pair, ...]
    """By seed, ascending."""
    differences: list[SettingDiff]
    """What differs besides the run; between two cells only what keeps them from being compared."""
    changes: list[Change] = field(default_factory=list)
    """One per metric."""

    def verdicts(self) -> list[str]:
        """Of statuses that changed, and of all metrics."""
        return [verdict for p in self.pairs if (verdict := p.status_verdict)] + [c.verdict for c in self.changes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """B against A."""

    a: str
    b: str
    same_cells: bool
    """Whether both are runs of the same cells; else B are other cells of A's run, which are meant to differ."""
    options: CompareOptions
    rows: list[ComparedRow]
    """In the order of A."""
    missing: list[CellRecord] = field(default_factory=list)
    """Records without a counterpart in B."""
    new: list[CellRecord] = field(default_factory=list)
    """Records without a counterpart in A."""
    environments: list[str]
    """Versions and commits that differ, as ``torch: 2.11.0 → 2.15.0``."""
    allow_missing: bool = False

    def count(self, verdict: str) -> int:
        """How many changes, of values and of statuses, have this verdict."""
        return sum(found == verdict for row in self.rows for found in row.verdicts())

    @property
    def exit_code(self) -> int:
        """1 if anything is worse, or a cell is missing and may not be; 0 between cells."""
        worse = self.count("worse") > 0 or (bool(self.missing) and not self.allow_missing)
        return int(self.same_cells and worse)


def compare(
    a: Source, b: Source, options: CompareOptions, *, only: Sequence[str] = (), allow_missing: bool = False
) -> Comparison:
    """Compare B with A, matched by label and seed within spec and scale.

    Names of specs need not agree where each side has one spec only. ``only``: globs on the labels, any of which must
    match. Raises SpecError if nothing matches.
    """
    a, b = _selected(a, only), _selected(b, only)
    by_name = len({r.spec for r in a.records}) > 1 or len({r.spec for r in b.records}) > 1
    ours, theirs = _by_key(a, by_name), _by_key(b, by_name)
    pairs = {key: Pair(a=stored, b=theirs[key]) for key, stored in ours.items() if key in theirs}
    if not pairs:
        raise SpecError(
            f"no cell is on both sides: {a.name} has {_contents(a)}; {b.name} has {_contents(b)}; name records of the "
            "same spec and scale"
        )
    return replace(
        _compared(a.name, b.name, pairs, options, same_cells=True),
        missing=[stored.record for key, stored in ours.items() if key not in theirs],
        new=[stored.record for key, stored in theirs.items() if key not in ours],
        allow_missing=allow_missing,
    )


def compare_with_cell(source: Source, label: str, options: CompareOptions, *, only: Sequence[str] = ()) -> Comparison:
    """Compare every cell (of ``only``) with the one of this label, seed by seed, within its spec and scale.

    Raises SpecError if there is no such cell, or no other.
    """
    known = _by_key(source, by_name=True)
    references = {(spec, scale, seed): own for (spec, scale, row, seed), own in known.items() if row == label}
    if not references:
        labels = list(dict.fromkeys(row for _, _, row, _ in known))
        raise SpecError(f"--against {quoted(label)}: {source.name} has no such cell{did_you_mean(label, labels)}")
    pairs = {}
    for key, stored in _by_key(_selected(source, only), by_name=True).items():
        spec, scale, row, seed = key
        if row != label and (reference := references.get((spec, scale, seed))) is not None:
            pairs[key] = Pair(a=reference, b=stored)
    if not pairs:
        raise SpecError(f"--against {quoted(label)}: {source.name} has no other cell of the same spec, scale and seed")
    return _compared(f"{source.name}, {label}", "each other cell", pairs, options, same_cells=False)


def _selected(source: Source, only: Sequence[str]) -> Source:
    """The records whose label, with or without its seed, matches any of the globs."""
    if not only:
        return source
    stored = tuple(s for s in source.stored if any(fnmatchcase(n, g) for g in only for n in _labels(s.record)))
    if not stored:
        known = ", ".join(quoted(record.label) for record in source.records[:8])
        globs = " ".join(map(quoted, only))
        raise SpecError(f"--only {globs}: no cell of {source.name} has such a label (labels: {known})")
    return replace(source, stored=stored)


def _labels(record: CellRecord) -> tuple[str, str]:
    return record.label, record.label.removesuffix(f" seed={record.seed}")


def _by_key(source: Source, by_name: bool) -> dict[Key, StoredRecord]:
    """Of several cells of one label (the spec was changed between two runs) the one that ran last."""
    records = [(stored, stored.record) for stored in source.stored]
    return {(r.spec if by_name else "", r.scale, _labels(r)[1], r.seed): stored for stored, r in records}


def _contents(source: Source) -> str:
    cells = [f"{r.spec}/{r.scale} {quoted(r.label)}" for r in source.records]
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def _compared(a: str, b: str, pairs: Mapping[Key, Pair], options: CompareOptions, *, same_cells: bool) -> Comparison:
    members: dict[tuple[str, str, str], list[Pair]] = {}
    for key, pair in pairs.items():
        members.setdefault(key[:3], []).append(pair)
    folders = {id(stored.record): stored.folder for pair in pairs.values() for stored in (pair.a, pair.b)}
    examples, rows = ExampleScores(None, folders), []
    for (_, scale, label), of_row in members.items():
        ordered = tuple(sorted(of_row, key=lambda pair: pair.a.record.seed))
        diffs = dict.fromkeys(diff for pair in ordered for diff in _differences(pair.a.record, pair.b.record))
        kept = [diff for diff in diffs if same_cells or diff.hides]
        spec = ordered[0].b.record.spec
        row = ComparedRow(spec=spec, scale=scale, label=label, pairs=ordered, differences=kept)
        names = options.metrics or (*COSTS, *metrics.of_task(ordered[0].b.record.task))
        rows.append(replace(row, changes=[_change(row, metrics.get(name), examples, options) for name in names]))
    corrected = iter(holm([change.p for row in rows for change in row.changes if change.p is not None]))
    for i, row in enumerate(rows):
        judged = [c if c.p is None else _judged(replace(c, p=next(corrected)), options) for c in row.changes]
        rows[i] = replace(row, changes=judged)
    environments = _environments(pair for row in rows for pair in row.pairs)
    return Comparison(a=a, b=b, same_cells=same_cells, options=options, rows=rows, environments=environments)


# --- one change ------------------------------------------------------------------------------------------------


def _change(row: ComparedRow, metric: Metric, examples: ExampleScores, options: CompareOptions) -> Change:
    """A score's p is not corrected yet."""
    kind: Kind = "score" if metrics.underlying_score(row.pairs[0].b.record, metric.name) else "measured"
    if not metric.rankable:
        kind = "exact"
    hidden = [str(diff) for diff in row.differences if kind in diff.hides]
    pairs = [(p.a.record, p.b.record) for p in row.pairs]
    measured = [(a, b) for a, b in pairs if metric.value(a) is not None and metric.value(b) is not None]
    if kind != "exact":
        measured = [(a, b) for a, b in measured if a.status == b.status == "ok"]
    a, b = (
        Row(label=row.label, labels={}, cells=(), records=records, published=None)
        for records in zip(*(measured or pairs), strict=True)
    )
    found = Change(metric=metric, a=a.mean(metric), b=b.mean(metric), verdict="within noise")
    if not measured:
        return replace(found, verdict="not measured")
    if hidden:
        return replace(found, verdict="not comparable", reason="; ".join(hidden))
    tested = difference(b, a, metric, examples)
    if kind != "score":
        seeds = (tested.high - tested.low) / 2 if tested else 0.0
        least = max(options.tolerance(metric).of(found.a or 0), SAME * abs(found.a or 0))
        noise = least if kind == "exact" else max(least, seeds, _step_noise(metric, a, b))
        beyond = abs(found.change or 0) > noise
        return replace(found, noise=noise, verdict=_direction(found) if beyond else "within noise")
    if tested is None:
        return replace(found, verdict="not comparable", reason="one seed, and nothing is known of single examples")
    return _judged(replace(found, low=tested.low, high=tested.high, p=tested.p, reason=tested.kind), options)


def _judged(found: Change, options: CompareOptions) -> Change:
    """With the verdict on a tested score."""
    assert found.a is not None
    assert found.change is not None
    assert found.p is not None
    beyond = found.p < options.alpha and abs(found.change) > options.tolerance(found.metric).of(found.a)
    return replace(found, verdict=_direction(found) if beyond else "within noise")


def _direction(found: Change) -> Verdict:
    return "better" if ((found.change or 0) > 0) == (found.metric.direction == "higher") else "worse"


def _step_noise(metric: Metric, a: Row, b: Row) -> float:
    """Standard deviation of the difference of two steps, one of each run, ms; 0 for other metrics.

    The median of a run's steps is known better than one step is, but what makes two runs differ on one machine (clocks,
    other work, memory layout) lasts longer than a step, so the steps of one run do not show all of it.
    """
    if metric.name != "step_time":
        return 0.0
    return math.hypot(*(statistics.fmean(map(_step_deviation, row.ok)) for row in (a, b)))


def _step_deviation(record: CellRecord) -> float:
    """Milliseconds; from median and 95th percentile, as of normally distributed steps."""
    median, p95 = record.time.step_median_s, record.time.step_p95_s
    return 0.0 if median is None or p95 is None else 1e3 * (p95 - median) / statistics.NormalDist().inv_cdf(0.95)


# --- what differs besides --------------------------------------------------------------------------------------


def _differences(a: CellRecord, b: CellRecord) -> Iterator[SettingDiff]:
    ours, theirs = _device(a), _device(b)
    if ours != theirs:
        yield SettingDiff("device", ours, theirs, ("measured",))
    if a.data_digest != b.data_digest:
        yield SettingDiff("data", _start(a.data_digest), _start(b.data_digest), ("measured", "score"))
    if a.weights_digest != b.weights_digest:
        yield SettingDiff("weights", _start(a.weights_digest), _start(b.weights_digest), ())
    settings, others = (dict(leaves(_complete(record.settings))) for record in (a, b))
    for key in dict.fromkeys((*settings, *others)):
        # Cells of one id can differ in the threads alone, which nothing but the times depends on.
        decides = key == "run.threads" or (a.cell_id != b.cell_id and key.partition(".")[0] in DETERMINING)
        if decides and settings.get(key) != others.get(key):
            hides: tuple[Kind, ...] = ("score",) if key.startswith(("task.", "evaluate.closed")) else ()
            yield SettingDiff(key, quoted(settings.get(key)), quoted(others.get(key)), hides)


def _device(record: CellRecord) -> str:
    """The GPU; where there was none, the CPU, whose model decides the times."""
    device, cpu = record.environment.get("device"), record.environment.get("cpu")
    return f"cpu ({cpu})" if device == "cpu" and cpu else str(device)


def _start(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _complete(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the defaults of fields that the program did not have yet when it wrote them."""
    try:
        return Cell.model_validate(settings).model_dump(mode="json")
    except ValidationError:  # of a plugin that is not installed here, or of another version's
        return settings


def _environments(pairs: Iterator[Pair]) -> list[str]:
    found: dict[str, None] = {}
    for pair in pairs:
        a, b = _program(pair.a.record), _program(pair.b.record)
        found |= {f"{key}: {a.get(key)} → {b.get(key)}": None for key in {**a, **b} if a.get(key) != b.get(key)}
    return list(found)


def _program(record: CellRecord) -> dict[str, str]:
    versions, git = record.environment.get("versions"), record.environment.get("git")
    known = {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    if isinstance(git, dict):
        known["commit"] = str(git.get("commit"))[:12] + (" with changes" if git.get("dirty") else "")
    return known

"""What changed between two sets of records beyond noise, and which published numbers a run reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from bench.analysis.compare.changes import BothSides, Change, CompareOptions, changes_of, corrected
from bench.analysis.compare.match import Matched, MatchedRow, against, match
from bench.errors import SpecError
from bench.records.record import CellRecord, Status
from bench.spec.diagnostics import quoted

if TYPE_CHECKING:
    from bench.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusChange:
    """A cell that ended another way."""

    seed: int
    a: Status
    b: Status

    @property
    def verdict(self) -> str:
        """``worse`` from ``ok`` to anything else, ``better`` back; between two failures ``changed``."""
        if self.a is Status.OK:
            return "worse"
        return "better" if self.b is Status.OK else "changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChanges:
    """One row of the comparison: the cells that differ in their seeds only."""

    row: MatchedRow
    statuses: list[StatusChange]
    changes: list[Change]
    """One per metric."""

    def verdicts(self) -> list[str]:
        return [status.verdict for status in self.statuses] + [change.verdict for change in self.changes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """B against A."""

    a: str
    b: str
    same_cells: bool
    """Whether both are runs of the same cells; else B are other cells of A's run, of which none is to be better."""
    rules: CompareOptions
    rows: list[RowChanges]
    missing: list[CellRecord]
    new: list[CellRecord]
    environments: list[str]
    """Versions and commits that differ, as ``torch: 2.11.0 → 2.15.0``."""
    allow_missing: bool

    def count(self, verdict: str) -> int:
        """How many changes, of values and of statuses, have this verdict."""
        return sum(found == verdict for row in self.rows for found in row.verdicts())

    @property
    def exit_code(self) -> int:
        """1 if anything is worse, or a cell is missing and may not be; 0 between cells, which are meant to differ."""
        worse = self.count("worse") > 0 or (bool(self.missing) and not self.allow_missing)
        return int(self.same_cells and worse)


def compare(
    a: Source, b: Source, rules: CompareOptions, *, only: Sequence[str] = (), allow_missing: bool = False
) -> Comparison:
    """Compare B with A. ``only``: globs on the labels, any of which must match. Raises SpecError if nothing matches."""
    matched = match(_selected(a, only), _selected(b, only))
    return _compared(a.name, b.name, matched, rules, same_cells=True, allow_missing=allow_missing)


def compare_with_cell(source: Source, label: str, rules: CompareOptions, *, only: Sequence[str] = ()) -> Comparison:
    """Compare every cell (of ``only``) with the one of this label: what each choice costs and wins beside it.

    Raises SpecError if there is no such cell, or no other."""
    matched = against(source, label, _selected(source, only))
    return _compared(f"{source.name}, {label}", "each other cell", matched, rules, same_cells=False)


def _compared(
    a: str, b: str, matched: Matched, rules: CompareOptions, *, same_cells: bool, allow_missing: bool = False
) -> Comparison:
    examples = BothSides([stored for row in matched.rows for pair in row.pairs for stored in (pair.a, pair.b)])
    found = [changes_of(row, examples, rules) for row in matched.rows]
    tested = iter(corrected([change for changes in found for change in changes], rules))
    rows = [
        RowChanges(row=row, statuses=_statuses(row), changes=[next(tested) for _ in changes])
        for row, changes in zip(matched.rows, found, strict=True)
    ]
    return Comparison(
        a=a,
        b=b,
        same_cells=same_cells,
        rules=rules,
        rows=rows,
        missing=matched.missing,
        new=matched.new,
        environments=_environments(matched.rows),
        allow_missing=allow_missing,
    )


def _selected(source: Source, only: Sequence[str]) -> Source:
    """The records whose label any of the globs means, with or without its seed."""
    if not only:
        return source
    kept = [stored for stored in source.stored if _is_meant(stored.record, only)]
    if not kept:
        known = ", ".join(quoted(record.label) for record in source.records[:8])
        globs = " ".join(map(quoted, only))
        raise SpecError(f"--only {globs}: no cell of {source.name} has such a label (labels: {known})")
    return replace(source, stored=tuple(kept))


def _is_meant(record: CellRecord, globs: Sequence[str]) -> bool:
    names = (record.label, record.label.removesuffix(f" seed={record.seed}"))
    return any(fnmatchcase(name, glob) for glob in globs for name in names)


def _statuses(row: MatchedRow) -> list[StatusChange]:
    pairs = [(pair.a.record, pair.b.record) for pair in row.pairs]
    return [StatusChange(seed=a.seed, a=a.status, b=b.status) for a, b in pairs if a.status is not b.status]


def _environments(rows: Sequence[MatchedRow]) -> list[str]:
    """What is known of the programs, where it differs."""
    told: dict[str, None] = {}
    for row in rows:
        for pair in row.pairs:
            a, b = _program(pair.a.record), _program(pair.b.record)
            differing = [key for key in {**a, **b} if a.get(key) != b.get(key)]
            told |= dict.fromkeys(f"{key}: {a.get(key)} → {b.get(key)}" for key in differing)
    return list(told)


def _program(record: CellRecord) -> dict[str, str]:
    versions, git = record.environment.get("versions"), record.environment.get("git")
    known = {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    if isinstance(git, dict):
        known["commit"] = str(git.get("commit"))[:12] + (" with changes" if git.get("dirty") else "")
    return known

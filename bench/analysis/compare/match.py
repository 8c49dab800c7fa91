"""Which cells of two sources are the same, and what else than the program differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from bench.errors import SpecError
from bench.records.record import CellRecord
from bench.registry import did_you_mean
from bench.sources import Source, StoredRecord
from bench.spec.cell import DETERMINING, Cell
from bench.spec.diagnostics import dotted, quoted

Kind = Literal["exact", "measured", "score"]
"""Of metrics: what the pattern alone decides; what a run measures on its device; what it scores."""
PlaceOfRow = tuple[str, str, str]
"""Spec, scale and label without the seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The same cell with the same seed on both sides; or, against another cell, that one's with the same seed."""

    a: StoredRecord
    b: StoredRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedRow:
    """The cells that differ in their seeds only, as far as both sides have them."""

    spec: str
    scale: str
    label: str
    pairs: tuple[Pair, ...]
    """By seed, ascending."""
    same_cell: bool = True
    """Whether both sides are runs of one cell, not two cells of one run."""

    def differences(self) -> list[Difference]:
        """What else differs than the run, so that a change may come of it; each once. Of two cells only what keeps them
        from being compared."""
        found = [one for pair in self.pairs for one in _differences(pair.a.record, pair.b.record)]
        return list(dict.fromkeys(one for one in found if self.same_cell or one.hides))


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """All cells of two sources."""

    rows: list[MatchedRow]
    """In the order of A."""
    missing: list[CellRecord]
    """In A only."""
    new: list[CellRecord]
    """In B only."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that makes the two runs of a cell not the same experiment."""

    what: str
    """``device``, ``data``, ``weights``, or the dotted place of a setting."""
    a: str
    b: str
    hides: tuple[Kind, ...]
    """What cannot be compared because of it; empty: everything can, but a change may come of this."""

    def __str__(self) -> str:
        return f"{self.what}: {self.a} → {self.b}"


def match(a: Source, b: Source) -> Matched:
    """Match by label and seed within spec and scale; spec names need not agree where each side has one spec only.

    Raises SpecError if nothing matches.
    """
    by_name = len({r.spec for r in a.records}) > 1 or len({r.spec for r in b.records}) > 1
    ours, theirs = _by_place(a, by_name), _by_place(b, by_name)
    both = [place for place in ours if place in theirs]
    if not both:
        raise SpecError(
            f"no cell is on both sides: {a.name} has {_contents(a)}; {b.name} has {_contents(b)}; name records of the "
            "same spec and scale"
        )
    rows: dict[PlaceOfRow, list[Pair]] = {}
    for place in both:
        rows.setdefault(place[:3], []).append(Pair(a=ours[place], b=theirs[place]))
    return Matched(
        rows=[_row(place, pairs) for place, pairs in rows.items()],
        missing=[stored.record for place, stored in ours.items() if place not in theirs],
        new=[stored.record for place, stored in theirs.items() if place not in ours],
    )


def against(source: Source, label: str, others: Source) -> Matched:
    """The other cells with the one of this label in the source, seed by seed, within their spec and scale.

    Raises SpecError if there is no such cell, or no other beside it.
    """
    found = _by_place(source, by_name=True)
    references = {(spec, scale, seed): own for (spec, scale, row, seed), own in found.items() if row == label}
    if not references:
        labels = list(dict.fromkeys(row for _, _, row, _ in found))
        raise SpecError(f"--against {quoted(label)}: {source.name} has no such cell{did_you_mean(label, labels)}")
    rows: dict[PlaceOfRow, list[Pair]] = {}
    for (spec, scale, row, seed), stored in _by_place(others, by_name=True).items():
        if row != label and (reference := references.get((spec, scale, seed))) is not None:
            rows.setdefault((spec, scale, row), []).append(Pair(a=reference, b=stored))
    if not rows:
        raise SpecError(f"--against {quoted(label)}: {source.name} has no other cell of the same spec, scale and seed")
    return Matched(
        rows=[replace(_row(place, pairs), same_cell=False) for place, pairs in rows.items()], missing=[], new=[]
    )


def _by_place(source: Source, by_name: bool) -> dict[tuple[str, str, str, int], StoredRecord]:
    """Of several cells of one label (the spec was changed between two runs) the one that ran last."""
    found: dict[tuple[str, str, str, int], StoredRecord] = {}
    for stored in source.stored:
        r = stored.record
        found[r.spec if by_name else "", r.scale, r.label.removesuffix(f" seed={r.seed}"), r.seed] = stored
    return found


def _row(place: PlaceOfRow, pairs: list[Pair]) -> MatchedRow:
    ordered = tuple(sorted(pairs, key=lambda pair: pair.a.record.seed))
    return MatchedRow(spec=ordered[0].b.record.spec, scale=place[1], label=place[2], pairs=ordered)


def _contents(source: Source) -> str:
    cells = [f"{r.spec}/{r.scale} {quoted(r.label)}" for r in source.records]
    return ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")


def _differences(a: CellRecord, b: CellRecord) -> Iterator[Difference]:
    ours, theirs = _device(a), _device(b)
    if ours != theirs:
        yield Difference("device", ours, theirs, ("measured",))
    if a.data_digest != b.data_digest:
        yield Difference("data", _start(a.data_digest), _start(b.data_digest), ("measured", "score"))
    if a.weights_digest != b.weights_digest:
        yield Difference("weights", _start(a.weights_digest), _start(b.weights_digest), ())
    yield from _settings(a, b)


def _device(record: CellRecord) -> str:
    """The GPU; where there was none, the CPU, whose model decides the times."""
    device, cpu = record.environment.get("device"), record.environment.get("cpu")
    return f"cpu ({cpu})" if device == "cpu" and cpu else str(device)


def _start(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _settings(a: CellRecord, b: CellRecord) -> Iterator[Difference]:
    """Those that differ. Where the ids agree that can only be the threads, which no result but the times depends on."""
    ours, theirs = _flat(_complete(a.settings)), _flat(_complete(b.settings))
    for place in dict.fromkeys((*ours, *theirs)):
        decides = place == "run.threads" or (a.cell_id != b.cell_id and place.partition(".")[0] in DETERMINING)
        if decides and ours.get(place) != theirs.get(place):
            other_score = place.startswith(("task.", "evaluate.closed"))
            yield Difference(
                place, quoted(ours.get(place)), quoted(theirs.get(place)), ("score",) if other_score else ()
            )


def _complete(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the defaults of fields that the program did not have yet when it wrote them."""
    try:
        return Cell.model_validate(settings).model_dump(mode="json")
    except ValidationError:  # of a plugin that is not installed here, or of another version's
        return settings


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Dotted place -> leaf."""
    if not isinstance(value, Mapping):
        return {dotted(path): value}
    return {place: leaf for key, below in value.items() for place, leaf in _flat(below, (*path, str(key))).items()}

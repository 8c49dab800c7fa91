"""What a table says of the inputs its scores are of: training data among the test examples, and cut texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench import format

if TYPE_CHECKING:
    from bench.analysis.rows import Row
    from bench.records.record import CellRecord, CutCount

_SHOWN = 5
_TEXTS = {"train_questions": "training texts", "train_answers": "training answers", "test_questions": "test texts"}


def training_tag(groups: Sequence[Row]) -> str:
    """What marks tables and plots all of whose scores are of training examples; empty for others."""
    scored = [bool(cell.data.trained_and_scored()) for group in groups for cell in group.cells]
    return "TRAINING SPLIT" if scored and all(scored) else ""


def warning(group: Row) -> str:
    """Whether a row's scores are held-out ones; empty if nothing else is known."""
    if splits := dict.fromkeys(name for cell in group.cells for name in cell.data.trained_and_scored()):
        return f"scored on the training split ({', '.join(map(format.one_line, splits))})"
    shares = {(r.overlap.same, r.overlap.n) for r in group.ok if r.overlap is not None and r.overlap.same}
    return ", ".join(f"{same:,} of {n:,} test examples are also in training" for same, n in sorted(shares))


def notes(groups: Sequence[Row]) -> list[str]:
    """Footnotes; only those that apply."""
    by_names = any(r.overlap is not None and r.overlap.images == "names" for group in groups for r in group.ok)
    hint = " (images compared by name alone: there are too many)" if by_names else ""
    found = [_warned(groups, warning, hint), _warned(groups, _cut, "")]
    return [note for note in found if note]


def _warned(groups: Sequence[Row], about: Callable[[Row], str], hint: str) -> str:
    """What holds of all rows, or each with its rows."""
    rows: dict[str, list[str]] = {}
    for group in groups:
        if said := about(group):
            rows.setdefault(said, []).append(group.label)
    parts = []
    for said, labels in rows.items():
        parts.append(f"{said[0].upper()}{said[1:]}{where(labels, groups)}{hint}.")
    return " ".join(parts)


def where(labels: Sequence[str], groups: Sequence[Row]) -> str:
    """``in F-T-LoRA``, after a blank: the rows that something holds of; empty if it holds of all."""
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return "" if len(labels) == len(groups) else f" in {', '.join(labels[:_SHOWN])}{more}"


def _cut(group: Row) -> str:
    counts = dict.fromkeys(
        f"{count.cut:,} of {count.n:,} {_TEXTS.get(name, name)}"
        for record in group.ok
        for name, count in _counts(record)
        if count.cut
    )
    return f"longer than the model takes, and cut: {', '.join(counts)}" if counts else ""


def _counts(record: CellRecord) -> list[tuple[str, CutCount]]:
    return list((record.texts_cut or {}).items())

"""Caption and footnotes of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import format
from bench.analysis.best import BestMarks
from bench.analysis.published import OWN_SCALES
from bench.analysis.rows import Row, baselines_of, eval_sets
from bench.analysis.statistics import DifferenceKind
from bench.metrics import Metric
from bench.records.record import CellRecord, Status
from bench.units import gib
from bench.versions import OLDEST as LIBRARIES

if TYPE_CHECKING:
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

CLOSED_RULES = {
    "yes_no": "closed: the gold answer is yes or no",
    "answer_type": "closed: as the data set's annotation says",
}
_NOTE_LENGTH, _MAX_NOTES, _MAX_LABELS = 300, 20, 5
"""Maximum characters of a note about the data, such notes (which come from records), and labels in a note."""
_TESTS: dict[DifferenceKind, str] = {
    "mcnemar": "exact McNemar test on the same examples",
    "paired": "paired bootstrap of the same examples and of the seeds",
    "unpaired": "test of the examples as two samples",
    "seeds": "Welch's t test over the seeds",
}
_TEXTS = {"train_questions": "training texts", "train_answers": "training answers", "test_questions": "test texts"}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableColumn:
    """One column of the spec; ``metric`` is null for a column of labels."""

    value: str
    header: str
    metric: Metric | None = None
    published: bool = False
    """Whether any row has a published value here."""


def scale_tag(scale: str) -> str:
    """Mark of tables and plots of a scale such as demo; empty for the spec as it stands."""
    return "" if scale in OWN_SCALES else format.one_line(scale).upper()


def tag(scale: str, rows: Sequence[Row]) -> str:
    """``scale_tag``, with a warning where all scores are on training examples."""
    scored = [bool(cell.data.trained_and_scored()) for row in rows for cell in row.cells]
    return f"{format.one_line(scale).upper()}, TRAINING SPLIT" if scored and all(scored) else scale_tag(scale)


def caption(scale: str, rows: Sequence[Row]) -> str:
    """Sentences after the title: source of the numbers, and whether they are comparable with published ones."""
    warned = scale_tag(scale) and not is_published_setting(rows)
    warning = "Not the published setting: not comparable with published numbers. " if warned else ""
    return f"{warning}{facts(scale, rows)}."


def is_published_setting(rows: Sequence[Row]) -> bool:
    """Whether the scale of these rows may be the published setting."""
    return any(row.published is not None and row.published.comparable for row in rows)


def facts(scale: str, rows: Sequence[Row]) -> str:
    """Scale, model, data, seeds and devices, separated by semicolons."""
    cells = [cell for row in rows for cell in row.cells]
    models = dict.fromkeys(format.one_line(cell.model.describe()) for cell in cells)
    seeds = sorted({cell.seed for cell in cells})
    spread = ", mean ± standard deviation" if len(seeds) > 1 else ""
    devices = {format.one_line(device) for r in _records(rows) if (device := r.environment.get("device"))}
    known = [f"Scale: {format.one_line(scale)}"]
    known += [f"model: {' / '.join(models)}"] if models else []
    known += [f"data: {', '.join(sorted({_data(cell) for cell in cells}))}"] if cells else []
    known += [f"{format.counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}{spread})"] if seeds else []
    known += [f"device: {', '.join(sorted(devices))}"] if devices else []
    return "; ".join(known)


def _data(cell: Cell) -> str:
    split = " split, which is trained on: not held-out scores" if cell.data.trained_and_scored() else " split"
    return f"{format.one_line(cell.data.name)} ({format.one_line(cell.data.test_split)}{split})"


def warning(row: Row) -> str:
    """Why a row's scores are not held-out ones; empty otherwise."""
    if splits := dict.fromkeys(name for cell in row.cells for name in cell.data.trained_and_scored()):
        return f"scored on the training split ({', '.join(map(format.one_line, splits))})"
    shares = {(r.overlap.same, r.overlap.n) for r in row.ok if r.overlap is not None and r.overlap.same}
    return ", ".join(f"{same:,} of {n:,} test examples are also in training" for same, n in sorted(shares))


def footnotes(spec: Spec, rows: Sequence[Row], columns: Sequence[TableColumn], marks: Sequence[BestMarks]) -> list[str]:
    """Footnotes that apply, in the order printed."""
    notes = [
        _scoring_note(rows),
        _best_note(rows, columns, marks),
        *_value_notes(spec, rows, columns, marks),
        *_run_notes(rows),
        *_data_notes(rows),
    ]
    return [note for note in notes if note]


def _records(rows: Iterable[Row]) -> list[CellRecord]:
    return [record for row in rows for record in row.current]


def _scoring_note(rows: Sequence[Row]) -> str:
    records = [record for row in rows for record in row.ok]
    if accuracies := [record.accuracy for record in records if record.accuracy]:
        rules = sorted({CLOSED_RULES[cell.evaluate.closed] for row in rows for cell in row.cells})
        return (
            f"Accuracy: exact match after normalisation; {', '.join(rules)}. Questions: "
            f"open {_sizes(a.open.n for a in accuracies)}, closed {_sizes(a.closed.n for a in accuracies)}, "
            f"global {_sizes(a.overall.n for a in accuracies)}."
        )
    sizes = [score.n for record in records for score in record.scores.values()]
    if not sizes:
        return ""
    scoring = dict.fromkeys(rule for row in rows for cell in row.cells if (rule := cell.task.describe_scoring()))
    return " ".join([f"Test examples: {_sizes(sizes)}.", *(f"{rule}." for rule in scoring)])


def _sizes(sizes: Iterable[int]) -> str:
    least, *others = sorted(set(sizes))
    return f"n = {least:,} to {others[-1]:,}, depending on the cell" if others else f"n = {least:,}"


def _best_note(rows: Sequence[Row], columns: Sequence[TableColumn], marks: Sequence[BestMarks]) -> str:
    """Meaning of bold, the tests behind it, and what they do not cover."""
    tested = [found for found in marks if found.pairs]
    exact = [c.header for c, found in zip(columns, marks, strict=True) if found.best and not found.pairs]
    if not tested:
        return f"Bold: the best value ({', '.join(exact)}: the same again in another run)." if exact else ""
    kinds = [words for kind, words in _TESTS.items() if any(kind in found.kinds for found in tested)]
    most = max(found.pairs for found in tested)
    holm = f"; Holm's correction for the {most:,} pairs of cells" if most > 1 else ""
    note = f"Bold: the best value and all that cannot be told from it at the 5 % level ({'; '.join(kinds)}{holm})"
    note += f"; in {', '.join(exact)}, which another run repeats, the best value alone" if exact else ""
    if any(len(row.ok) == 1 for row in rows) and not all("seeds" in found.kinds for found in tested):
        note += ". With one seed a test does not know what another would change"
    return f"{note}. Nothing is bold where no cell can be told from the best."


def _value_notes(
    spec: Spec, rows: Sequence[Row], columns: Sequence[TableColumn], marks: Sequence[BestMarks]
) -> Iterator[str]:
    """Notes on columns without a best value, published values, predictions, and empty columns."""
    if unknown := [c.header for c, found in zip(columns, marks, strict=True) if found.noise_unknown]:
        yield f"No best value marked, as one run does not tell its noise: {', '.join(unknown)}."
    if spec.published and any(column.published for column in columns):
        source = format.one_line(spec.published.source).rstrip(".")
        yield f"Published: {source}. Deviation: measured minus published."
    flagged = [
        f"{row.label} (printed {row.published.values['global']:.2f}, implied {row.published.implied:.2f})"
        for row in rows
        if row.published and row.published.implied is not None
    ]
    if flagged:
        what = "The published Global is not the weighted mean of the published Open and Closed"
        yield f"{format.FLAG} {what}: {', '.join(flagged)}."
    predicted, empty = [], []
    for column in columns:
        if metric := column.metric:
            unmeasured = [row for row in rows if not row.values(metric)]
            if any(row.predicted(metric) is not None for row in unmeasured):
                predicted.append(column.header)
            elif len(unmeasured) == len(rows):
                empty.append(column.header)
    if predicted:
        yield f"{format.PREDICTED} Predicted for a CUDA GPU, not measured: {', '.join(predicted)}."
    if empty and any(row.ok for row in rows):
        yield f"{format.DASH} Not measured on this device: {', '.join(empty)}."


def _run_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Notes on missing cells, and on what limits comparisons between the others."""
    total = sum(len(row.records) for row in rows)
    if missing := sum(record is None for row in rows for record in row.records):
        yield f"{missing:,} of {format.counted(total, 'cell')} not run yet."
    if any(len(baselines_of(eval_set.rows)) > 1 for eval_set in eval_sets(rows)):
        yield (
            "The baselines differ between the cells, which were scored on different questions: the first cell's are "
            "shown."
        )
    # A skipped cell ran on no device.
    ran = [record for record in _records(rows) if record.status is not Status.SKIPPED]
    if len({record.environment.get("device") for record in ran}) > 1:
        yield "The cells ran on different devices: compare their memory and times with care."
    foreign = {g.label: max((r.memory.foreign_bytes or 0 for r in g.current if r.memory.shared), default=None)
               for g in rows}  # fmt: skip
    if shared := {label: size for label, size in foreign.items() if size is not None}:
        yield (
            f"Other processes held up to {gib(max(shared.values()))} GiB of the GPU when cells started"
            f"{_where([*shared], rows)}: these may have taken longer, or have run out of memory earlier, than on a "
            "GPU of their own."
        )
    versions = {name: Counter(_version(record, name) for record in ran) for name in LIBRARIES}
    versions["commit of this program"] = Counter(map(_commit, ran))
    if differing := [f"{name} {_shares(counts)}" for name, counts in versions.items() if len(counts) > 1]:
        yield f"The cells ran with different versions: {'; '.join(differing)}."
    stale = Counter(g.stale[r.cell_id] for g in rows for r in g.records if r and r.cell_id in g.stale)
    if stale:
        yield (
            f"Stale: {_shares(stale)} since these cells ran. Their values are greyed (in Markdown struck through) and "
            "left out of bold, fronts, baselines and tests; a run replaces them."
        )


def _version(record: CellRecord, name: str) -> str:
    versions = record.environment.get("versions")
    return format.one_line(versions.get(name, "unknown")) if isinstance(versions, dict) else "unknown"


def _commit(record: CellRecord) -> str:
    git = record.environment.get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        return "unknown"
    return format.one_line(git["commit"])[:8] + (" with changes" if git.get("dirty") else "")


def _shares(counts: Mapping[str, int]) -> str:
    """``2.14.1 (3 cells), 2.15.0 (1 cell)``."""
    return ", ".join(f"{format.one_line(value)} ({format.counted(n, 'cell')})" for value, n in sorted(counts.items()))


def _data_notes(rows: Sequence[Row]) -> Iterator[str]:
    """Notes of the records about their data sets, once each; training examples among the test examples; cut texts."""
    notes = {
        f"{format.one_line(cell.data.name)}: {format.one_line(note)[:_NOTE_LENGTH]}."
        for row in rows
        for cell, record in zip(row.cells, row.records, strict=True)
        if record and record.cell_id not in row.stale
        for note in record.notes or ()
    }
    yield from sorted(notes)[:_MAX_NOTES]
    by_names = any(r.overlap is not None and r.overlap.images == "names" for row in rows for r in row.ok)
    hint = " (images compared by name alone: there are too many)" if by_names else ""
    for about, more in ((warning, hint), (_cut, "")):
        labels: dict[str, list[str]] = {}
        for row in rows:
            if words := about(row):
                labels.setdefault(words, []).append(row.label)
        yield " ".join(f"{w[0].upper()}{w[1:]}{_where(of, rows)}{more}." for w, of in labels.items())


def _where(labels: Sequence[str], rows: Sequence[Row]) -> str:
    """`` in F-T-LoRA``: labels of the rows that a note is about; empty for all rows."""
    more = f" and {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
    return "" if len(labels) == len(rows) else f" in {', '.join(labels[:_MAX_LABELS])}{more}"


def _cut(row: Row) -> str:
    counts = dict.fromkeys(
        f"{count.cut:,} of {count.n:,} {_TEXTS.get(name, name)}"
        for record in row.ok
        for name, count in (record.texts_cut or {}).items()
        if count.cut
    )
    return f"longer than the model takes, and cut: {', '.join(counts)}" if counts else ""

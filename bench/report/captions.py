"""What a table says in words: caption and footnotes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench import format
from bench.analysis.best import BestMarks
from bench.analysis.published import OWN_SCALES
from bench.analysis.rows import Row, baselines_of, eval_sets
from bench.analysis.statistics import DifferenceKind
from bench.format import one_line
from bench.records.record import Status
from bench.report import inputs
from bench.report.model import TableColumn
from bench.units import gib
from bench.versions import OLDEST as LIBRARIES

if TYPE_CHECKING:
    from bench.records.record import CellRecord
    from bench.records.scores import Share
    from bench.spec.cell import Cell
    from bench.spec.sections import Spec

CLOSED_RULES = {
    "yes_no": "closed: the gold answer is yes or no",
    "answer_type": "closed: as the data set's annotation says",
}
_LONGEST, _MOST = 300, 20
"""Characters of a note about the data, and how many there can be: they come from records."""
_TESTS: dict[DifferenceKind, str] = {
    "mcnemar": "exact McNemar test on the same examples",
    "paired": "paired bootstrap of the same examples and of the seeds",
    "unpaired": "test of the examples as two samples",
    "seeds": "Welch's t test over the seeds",
}


def scale_tag(scale: str) -> str:
    """What marks every table and plot of a scale that is not the spec as it stands; empty for that."""
    return "" if scale in OWN_SCALES else one_line(scale).upper()


def tag(scale: str, groups: Sequence[Row]) -> str:
    """``scale_tag``, and that all scores are of training examples; empty for held-out ones at the spec's own scale."""
    training = inputs.training_tag(groups)
    return f"{one_line(scale).upper()}, {training}" if training else scale_tag(scale)


def caption(scale: str, groups: Sequence[Row]) -> str:
    """What follows the title: where the numbers come from, and whether they may be compared with published ones."""
    warned = scale_tag(scale) and not is_published_setting(groups)
    warning = "Not the published setting: not comparable with published numbers. " if warned else ""
    return f"{warning}{facts(scale, groups)}."


def is_published_setting(groups: Sequence[Row]) -> bool:
    """Whether the scale of these groups may be the published setting."""
    return any(group.published is not None and group.published.comparable for group in groups)


def facts(scale: str, groups: Sequence[Row]) -> str:
    """Scale, model, data, seeds and devices, by semicolons."""
    cells = [cell for group in groups for cell in group.cells]
    models = list(dict.fromkeys(one_line(cell.model.describe()) for cell in cells))
    data = sorted({_data(cell) for cell in cells})
    seeds = sorted({cell.seed for cell in cells})
    spread = ", mean ± standard deviation" if len(seeds) > 1 else ""
    devices = sorted({one_line(device) for r in _records(groups) if (device := r.environment.get("device"))})
    found = [f"Scale: {one_line(scale)}"]
    found += [f"model: {' / '.join(models)}"] if models else []
    found += [f"data: {', '.join(data)}"] if data else []
    found += [f"{format.counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))}{spread})"] if seeds else []
    found += [f"device: {', '.join(devices)}"] if devices else []
    return "; ".join(found)


def _data(cell: Cell) -> str:
    known = " split, which is trained on: not held-out scores" if cell.data.trained_and_scored() else " split"
    return f"{one_line(cell.data.name)} ({one_line(cell.data.test_split)}{known})"


def footnotes(
    spec: Spec, groups: Sequence[Row], columns: Sequence[TableColumn], marks: Sequence[BestMarks]
) -> list[str]:
    """In the order printed; only those that apply."""
    notes = [
        _scoring_note(groups),
        _best_note(groups, columns, marks),
        _noise_note(columns, marks),
        _published_note(spec, columns),
        _flag_note(groups),
        _predicted_note(groups, columns),
        _unmeasured_note(groups, columns),
        _missing_note(groups),
        _baseline_note(groups),
        _device_note(groups),
        _shared_note(groups),
        _version_note(groups),
        _stale_note(groups),
        *_data_notes(groups),
        *inputs.notes(groups),
    ]
    return [note for note in notes if note]


def _records(groups: Sequence[Row]) -> list[CellRecord]:
    return [record for group in groups for record in group.current]


def _scoring_note(groups: Sequence[Row]) -> str:
    accuracies = [record.accuracy for group in groups for record in group.ok if record.accuracy]
    if not accuracies:
        return _examples_note(groups)
    rules = sorted({CLOSED_RULES[cell.evaluate.closed] for group in groups for cell in group.cells})
    return (
        f"Accuracy: exact match after normalisation; {', '.join(rules)}. Questions: "
        f"open {_counts([a.open for a in accuracies])}, closed {_counts([a.closed for a in accuracies])}, "
        f"global {_counts([a.overall for a in accuracies])}."
    )


def _examples_note(groups: Sequence[Row]) -> str:
    sizes = sorted({score.n for group in groups for record in group.ok for score in record.scores.values()})
    if not sizes:
        return ""
    shown = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}, depending on the cell"
    rules = dict.fromkeys(rule for group in groups for cell in group.cells if (rule := cell.task.describe_scoring()))
    return " ".join([f"Test examples: n = {shown}.", *(f"{rule}." for rule in rules)])


def _counts(scores: Sequence[Share]) -> str:
    least, most = min(score.n for score in scores), max(score.n for score in scores)
    return f"n = {least:,}" if least == most else f"n = {least:,} to {most:,}, depending on the cell"


def _best_note(groups: Sequence[Row], columns: Sequence[TableColumn], marks: Sequence[BestMarks]) -> str:
    """What bold means, how it was tested, and what the tests do not know."""
    tested = [found for found in marks if found.pairs]
    exact = [c.header for c, found in zip(columns, marks, strict=True) if found.best and not found.pairs]
    if not tested:
        return f"Bold: the best value ({', '.join(exact)}: the same again in another run)." if exact else ""
    kinds = [words for kind, words in _TESTS.items() if any(kind in found.kinds for found in tested)]
    most = max(found.pairs for found in tested)
    holm = f"; Holm's correction for the {most:,} pairs of cells" if most > 1 else ""
    note = f"Bold: the best value and all that cannot be told from it at the 5 % level ({'; '.join(kinds)}{holm})"
    note += f"; in {', '.join(exact)}, which another run repeats, the best value alone" if exact else ""
    if any(len(group.ok) == 1 for group in groups) and not all("seeds" in found.kinds for found in tested):
        note += ". With one seed a test does not know what another would change"
    return f"{note}. Nothing is bold where no cell can be told from the best."


def _noise_note(columns: Sequence[TableColumn], marks: Sequence[BestMarks]) -> str:
    unknown = [c.header for c, found in zip(columns, marks, strict=True) if found.noise_unknown]
    return f"No best value marked, as one run does not tell its noise: {', '.join(unknown)}." if unknown else ""


def _published_note(spec: Spec, columns: Sequence[TableColumn]) -> str:
    if not spec.published or not any(column.published for column in columns):
        return ""
    return f"Published: {one_line(spec.published.source).rstrip('.')}. Deviation: measured minus published."


def _flag_note(groups: Sequence[Row]) -> str:
    rows = [
        f"{group.label} (printed {group.published.values['global']:.2f}, implied {group.published.implied:.2f})"
        for group in groups
        if group.published and group.published.implied is not None
    ]
    what = f"{format.FLAG} The published Global is not the weighted mean of the published Open and Closed"
    return f"{what}: {', '.join(rows)}." if rows else ""


def _predicted_note(groups: Sequence[Row], columns: Sequence[TableColumn]) -> str:
    shown = [
        c.header
        for c in columns
        if c.metric and any(not g.values(c.metric) and g.predicted(c.metric) is not None for g in groups)
    ]
    return f"{format.PREDICTED} Predicted for a CUDA GPU, not measured: {', '.join(shown)}." if shown else ""


def _unmeasured_note(groups: Sequence[Row], columns: Sequence[TableColumn]) -> str:
    if not any(group.ok for group in groups):
        return ""
    empty = [
        c.header
        for c in columns
        if c.metric and not any(g.values(c.metric) or g.predicted(c.metric) is not None for g in groups)
    ]
    return f"{format.DASH} Not measured on this device: {', '.join(empty)}." if empty else ""


def _missing_note(groups: Sequence[Row]) -> str:
    total = sum(len(group.records) for group in groups)
    missing = sum(record is None for group in groups for record in group.records)
    return f"{missing:,} of {format.counted(total, 'cell')} not run yet." if missing else ""


def _baseline_note(groups: Sequence[Row]) -> str:
    if all(len(baselines_of(one.rows)) < 2 for one in eval_sets(groups)):
        return ""
    return (
        "The baselines differ between the cells, which were scored on different questions: the first cell's are shown."
    )


def _device_note(groups: Sequence[Row]) -> str:
    devices = {record.environment.get("device") for record in _records(groups) if record.status is not Status.SKIPPED}
    return "The cells ran on different devices: compare their memory and times with care." if len(devices) > 1 else ""


def _shared_note(groups: Sequence[Row]) -> str:
    """Where other processes held memory of the GPU."""
    held = {group.label: [r.memory.foreign_bytes or 0 for r in group.current if r.memory.shared] for group in groups}
    labels = [label for label, found in held.items() if found]
    if not labels:
        return ""
    most = gib(max(max(found) for found in held.values() if found))
    return (
        f"Other processes held up to {most} GiB of the GPU when cells started{inputs.where(labels, groups)}: these may "
        "have taken longer, or have run out of memory earlier, than on a GPU of their own."
    )


def _version_note(groups: Sequence[Row]) -> str:
    """Which library versions and commits, where the cells were not all run with the same."""
    records = [record for record in _records(groups) if record.status is not Status.SKIPPED]
    told = [
        f"{name} {_shares(versions)}"
        for name in LIBRARIES
        if len(versions := Counter(_version(record, name) for record in records)) > 1
    ]
    commits = Counter(_commit(record) for record in records)
    told += [f"commit of this program {_shares(commits)}"] if len(commits) > 1 else []
    return f"The cells ran with different versions: {'; '.join(told)}." if told else ""


def _version(record: CellRecord, name: str) -> str:
    versions = record.environment.get("versions")
    return one_line(versions.get(name, "unknown")) if isinstance(versions, dict) else "unknown"


def _commit(record: CellRecord) -> str:
    found = record.environment.get("git")
    if not isinstance(found, dict) or not found.get("commit"):
        return "unknown"
    return one_line(found["commit"])[:8] + (" with changes" if found.get("dirty") else "")


def _shares(counts: Mapping[str, int]) -> str:
    """``2.14.1 (3 cells), 2.15.0 (1 cell)``."""
    return ", ".join(f"{value} ({format.counted(n, 'cell')})" for value, n in sorted(counts.items()))


def _stale_note(groups: Sequence[Row]) -> str:
    reasons = Counter(
        group.stale[r.cell_id] for group in groups for r in group.records if r and r.cell_id in group.stale
    )
    if not reasons:
        return ""
    told = ", ".join(f"{one_line(reason)} ({format.counted(n, 'cell')})" for reason, n in sorted(reasons.items()))
    return (
        f"Stale: {told} since these cells ran. Their values are greyed (in Markdown struck through) and left out of "
        "bold, fronts, baselines and tests; a run replaces them."
    )


def _data_notes(groups: Sequence[Row]) -> list[str]:
    """What the records' own notes say, once each, with the data set they are about."""
    told = {
        f"{one_line(cell.data.name)}: {one_line(note)[:_LONGEST]}."
        for group in groups
        for cell, record in zip(group.cells, group.records, strict=True)
        if record and record.cell_id not in group.stale
        for note in record.notes or ()
    }
    return sorted(told)[:_MOST]

"""Summary of a report in sentences, and the intervals behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from bench import format, metrics
from bench.analysis import statistics
from bench.analysis.best import BestMarks, mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import EvalSet, Row, baselines_of, eval_sets
from bench.metrics import Metric
from bench.report import captions
from bench.report.html.page_data import Axis, baselines, short

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80)
"""Memory sizes of common GPUs."""
NEEDED = "memory_nvml"
"""Metric of the GPU memory that a process needs."""
MAX_NAMED = 8
NAME_WIDTH = 36
"""Characters of the name of a task and test set."""


class Named(NamedTuple):
    """A row in a statement, with the ids of its cells."""

    label: str
    value: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One paragraph of the summary."""

    kind: Literal["best", "tie", "cost", "floor", "good", "failed", "state"]
    title: str
    text: str
    named: Sequence[Named] = ()
    more: int = 0
    """Number of further rows."""
    source: str = ""
    """Id of a cell whose record holds the baselines of the text."""


class Cost(NamedTuple):
    """Cost of a row by a metric: measured, else predicted."""

    value: float
    predicted: bool
    text: str
    """With its unit, and its mark if it is predicted."""


def intervals(row: Row, axes: Sequence[Axis], examples: ExampleScores) -> dict[str, Any]:
    """Axis -> [low, high, standard deviation or null, kind] of the measured values that have an interval."""
    found = {}
    for axis in axes:
        if axis.predicted or (not axis.is_score and len(row.ok) < 2):
            continue
        known = statistics.interval(row, axis.metric, examples)
        if known and known.low is not None and known.high is not None:
            std = None if known.std is None else short(known.std)
            found[axis.key] = [short(known.low), short(known.high), std, known.kind]
    return found


def summary(rows: Sequence[Row], examples: ExampleScores) -> list[Statement]:
    """Statements about each test set, then about how the cells ended."""
    statements = []
    for eval_set in eval_sets(rows):
        prefix = f"{format.clipped(eval_set.name, NAME_WIDTH)} · " if eval_set.name else ""
        found = _Scores(eval_set, examples).statements()
        statements += [replace(statement, title=prefix + statement.title) for statement in found]
    return [*statements, _state(rows)] if rows else statements


class _Scores:
    """Statements about the comparable rows of a test set."""

    def __init__(self, eval_set: EvalSet, examples: ExampleScores) -> None:
        self.rows, self.examples = eval_set.rows, examples
        self.main = metrics.get(metrics.main(eval_set.task))
        sign = -1 if self.main.direction == "higher" else 1
        scored = [(sign * value, row) for row in self.rows if (value := row.mean(self.main)) is not None]
        self.ranked = [row for _, row in sorted(scored, key=lambda pair: pair[0])]
        """Rows with a score, the best first."""
        self.baselines = {row: baselines(row, self.main) for row in self.ranked}
        self.better = [
            row for row in self.ranked if self.is_above(row, max(self.baselines[row].values(), default=None))
        ]
        """Rows that beat all baselines."""

    def is_above(self, row: Row, baseline: float | None) -> bool:
        """Whether the row's whole interval lies above; true without a baseline."""
        if baseline is None:
            return True
        known = statistics.interval(row, self.main, self.examples)
        least = None if known is None else known.mean if known.low is None else known.low
        return least is not None and least > baseline

    def statements(self) -> list[Statement]:
        if not self.ranked:
            return []
        best = self.ranked[0]
        marks = mark_best(self.rows, self.main, self.examples)
        marked = {self.rows[place] for place in marks.best}
        ties = [row for row in self.ranked[1:] if not marked or row in marked]
        recommended, against = best in self.better, list(self.against_baselines())
        # In the order of a reader's decisions: without a row above the baselines there is nothing to recommend.
        return [
            *([] if recommended else against),
            self.first(),
            *self.tied(ties, marks),
            *(self.cheapest([row for row in (best, *ties) if row in self.better]) if recommended else []),
            *self.under(),
            *(against if recommended else []),
        ]

    def statement(self, kind: Any, title: str, text: str, rows: Sequence[Row] = (), source: str = "") -> Statement:
        named = [_named(row, _value(row, self.main)) for row in rows[:MAX_NAMED]]
        more = max(0, len(rows) - MAX_NAMED)
        return Statement(kind=kind, title=title, text=text, named=named, more=more, source=source)

    def first(self) -> Statement:
        """The best score; called the highest unless it beats all baselines."""
        best, digits = self.ranked[0], self.main.digits
        known = statistics.interval(best, self.main, self.examples)
        facts = [_value(best, self.main)]
        if known and known.low is not None and known.high is not None:
            facts.append(f"95 % CI {format.number(known.low, digits)} to {format.number(known.high, digits)}")
        facts += [f"n = {known.n:,}"] if known and known.n else []
        text = ", ".join([*facts, format.counted(len(best.ok), "seed")]) + "."
        if len(best.ok) == 1:
            text += (
                " The interval covers the choice of test examples; with a single seed, seed variance is not included."
            )
        if len(baselines_of(self.ranked)) > 1:
            text += " Not all cells were scored on the same test examples: compare with care."
        score = metrics.task_scores().get(self.main.name)
        name = (score.title if score else "") or self.main.header
        shown = name if name.isupper() else name[0].lower() + name[1:]  # MCC stays
        recommended = best in self.better
        rank = "Only" if len(self.ranked) == 1 else "Best" if recommended else "Highest"
        return self.statement("best" if recommended else "state", f"{rank} {shown}: {best.label}", text, [best])

    def tied(self, ties: Sequence[Row], marks: BestMarks) -> Iterator[Statement]:
        """Rows that are statistically tied with the best, by the same tests as in the table."""
        tests = "paired on the test examples that cells share; 5 % level, Holm-corrected"
        if len(self.ranked) < 2:
            return
        if marks.noise_unknown:
            yield self.statement("tie", "Significance unknown", "There are no examples to compare by.")
        elif not ties:
            yield self.statement(
                "tie", "Told apart from all others", f"All other cells are significantly worse ({tests})."
            )
        else:
            who = "1 other cell is" if len(ties) == 1 else f"{len(ties)} other cells are"
            best = "best" if self.ranked[0] in self.better else "highest"
            text = f"No significant difference ({tests}). This does not establish equivalence."
            yield self.statement("tie", f"{who} not told apart from the {best}", text, ties)

    def cheapest(self, candidates: Sequence[Row]) -> Iterator[Statement]:
        """The cheapest of the best row and its ties, by parameters and by memory."""
        clauses: list[str] = []
        cheapest: list[Row] = []
        shown: list[Cost] = []
        for name, verb, what in (("params", "trains", "of the parameters"), (NEEDED, "needs", "of GPU memory")):
            costs = {row: cost for row in candidates if (cost := _cost(row, name)) is not None}
            if not costs:
                continue
            row = min(costs, key=lambda row: costs[row].value)
            cost = costs[row]
            shown.append(cost)
            if len({known.text for known in costs.values()}) == 1:
                clauses.append(f"each {verb} {cost.text} {what}")
                continue
            cheapest.append(row)
            if row is candidates[0]:
                clauses.append(f"{row.label} (the best itself) {verb} {cost.text} {what}")
                continue
            best = costs.get(candidates[0])
            shown += [best] if best else []
            clauses.append(f"{row.label} {verb} {cost.text} {what}" + (f", the best {best.text}" if best else ""))
        if len(candidates) > 1 and cheapest:
            rows = list(dict.fromkeys([*cheapest, candidates[0]]))
            text = "; ".join(clauses) + "." + _about(shown, candidates)
            yield self.statement("cost", "Cheapest of these", text, rows)

    def under(self) -> Iterator[Statement]:
        """The best row that fits each size of GPU at which it changes."""
        needs = {row: cost for row in self.better if (cost := _cost(row, NEEDED)) is not None}
        known = {row: cost for row in self.rows if (cost := _cost(row, NEEDED)) is not None}
        best_under: list[tuple[int, Row]] = []
        for size in CARDS_GIB:
            best = next((row for row, cost in needs.items() if cost.value <= size), None)
            if best is not None and (not best_under or best_under[-1][1] is not best):
                best_under.append((size, best))
        largest = max(known, key=lambda row: known[row].value, default=None)
        all_fit = len(best_under) == 1 and largest is not None and known[largest].value <= best_under[0][0]
        for size, best in best_under:
            cost, rows = needs[best], [best]
            text = f"{_value(best, self.main)}; needs {cost.text} of GPU memory."
            if all_fit and largest is not None:
                cost, rows = known[largest], list(dict.fromkeys([best, largest]))
                every = len(known) == len(self.rows)
                who = "Every cell" if every else f"Each of the {len(known)} cells whose need is known"
                text = f"{who} fits there: {largest.label} needs most, {cost.text} of GPU memory."
            yield self.statement("cost", f"Best under {size} GB: {best.label}", text + _about([cost], self.rows), rows)

    def against_baselines(self) -> Iterator[Statement]:
        """Rows not better than an input-blind baseline, or than a constant answer."""
        known = {row: found for row, found in self.baselines.items() if found}
        if not known:
            return
        first = {row: next(iter(found.items())) for row, found in known.items()}
        title = first[next(iter(known))][0].lower()
        shown = f"{title} ({self.range_of(value for _, value in first.values())})"
        below = [row for row in known if not self.is_above(row, first[row][1])]
        source = next(iter(known)).ok[0].cell_id
        several = len(self.ranked) > 1
        if not below:
            who = "All scored cells significantly outperform" if several else "The cell significantly outperforms"
            better = f"All are better than {title}" if several else f"Better than {title}"
            yield self.statement("good", better, f"{who} {shown}, an input-blind baseline.", source=source)
            return
        reach = "Its interval reaches down to" if len(below) == 1 else "Their intervals reach down to"
        lie = "lies" if len(below) == 1 else "lie"
        text = f"{reach} {shown}, which ignores the input, or {lie} below it."
        yield self.statement("floor", self.not_better(below, title), text, below, source)
        others = {row: max(pairs, key=lambda p: p[1]) for row in below if (pairs := list(known[row].items())[1:])}
        worse = [row for row, (_, value) in others.items() if not self.is_above(row, value)]
        if worse:
            text = f"That alone scores {self.range_of(others[row][1] for row in worse)}."
            constant = self.not_better(worse, others[worse[0]][0].lower())
            named = worse if len(worse) < len(below) else []
            yield self.statement("floor", constant, text, named, worse[0].ok[0].cell_id)

    def not_better(self, some: Sequence[Row], baseline: str) -> str:
        every = len(self.ranked)
        if len(some) == every > 1:
            return f"No cell is better than {baseline}"
        who = f"{some[0].label} is" if len(some) == 1 else f"{len(some)} of {every} cells are"
        return f"{who} not better than {baseline}"

    def range_of(self, values: Iterator[float]) -> str:
        least, *more = sorted(set(values))
        if not more:
            return _with_unit(least, self.main)
        return (
            f"{format.number(least, self.main.digits)} to {_with_unit(more[-1], self.main)}, on the cells' own examples"
        )


def _named(row: Row, value: str) -> Named:
    return Named(row.label, value, tuple(cell.cell_id for cell in row.cells))


def _value(row: Row, metric: Metric) -> str:
    return _with_unit(row.mean(metric), metric)


def _with_unit(value: float | None, metric: Metric) -> str:
    return f"{format.number(value, metric.digits)} {metric.unit}".strip()


def _cost(row: Row, name: str) -> Cost | None:
    metric = metrics.get(name)
    measured, predicted = row.mean(metric), row.predicted(metric)
    if measured is not None:
        return Cost(measured, False, _with_unit(measured, metric))
    return None if predicted is None else Cost(predicted, True, format.predicted(_with_unit(predicted, metric)))


def _about(costs: Sequence[Cost], rows: Sequence[Row]) -> str:
    """Caveats of these costs: predictions, and another model than the published one."""
    tag = "" if captions.is_published_setting(rows) else captions.scale_tag(rows[0].cells[0].scale)
    note = f" {format.PREDICTED}: predicted for a CUDA GPU, not measured." if any(c.predicted for c in costs) else ""
    return note + (f" This is the {tag.lower()}'s model, not the published one." if tag else "")


def _state(rows: Sequence[Row]) -> Statement:
    """Counts of how the cells ended."""
    ends: Mapping[str, int] = Counter(row.outcome(record) for row in rows for record in row.records)
    ok, total = ends.get("", 0), sum(ends.values())
    if ok == total:
        title = f"All {ok:,} cells ended well" if ok > 1 else "The only cell ended well"
        return Statement(kind="good", title=title, text="")
    failed = [row for row in rows if row.status]
    return Statement(
        kind="failed",
        title=f"{ok} of {format.counted(total, 'cell')} ended well",
        text="; ".join(f"{count:,} {end}" for end, count in sorted(ends.items()) if end) + ".",
        named=[_named(row, format.clipped(row.status, 90)) for row in failed[:MAX_NAMED]],
        more=max(0, len(failed) - MAX_NAMED),
    )

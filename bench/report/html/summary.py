"""The summary in plain words, and the intervals behind it; everything computed from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench import format, metrics
from bench.analysis import statistics
from bench.analysis.best import BestMarks, mark_best
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import EvalSet, Row, baselines_of, eval_sets
from bench.metrics import Metric
from bench.report import captions
from bench.report.html.floors import above, floors
from bench.report.html.page_data import Axis, short

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80)
"""Memory of GPUs that people have."""
NEEDED = "memory_nvml"
"""The metric that says what a process needs on a GPU."""
MOST_NAMED = 8
CLIPPED = 36
"""Characters of the name of a task and test set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A group in a statement, with the ids of its cells."""

    label: str
    value: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """One paragraph of the summary."""

    kind: Literal["best", "tie", "cost", "floor", "good", "failed", "state"]
    title: str
    text: str
    named: Sequence[Named] = field(default=())
    more: int = 0
    """Groups that are meant, too, but not named."""
    source: str = ""
    """Id of a cell whose record holds the baselines that are told of."""


def intervals(group: Row, found: Sequence[Axis], examples: ExampleScores) -> dict[str, Any]:
    """Axis -> [low, high, standard deviation or null, kind], of every measured value that has an interval."""
    told = {}
    for axis in found:
        if axis.predicted or (not axis.score and len(group.ok) < 2):
            continue
        known = statistics.interval(group, axis.metric, examples)
        if known and known.low is not None and known.high is not None:
            std = None if known.std is None else short(known.std)
            told[axis.key] = [short(known.low), short(known.high), std, known.kind]
    return told


def summary(groups: Sequence[Row], examples: ExampleScores) -> list[Statement]:
    """In the order that a reader decides in; one task and test set after the other: their scores cannot be compared."""
    told = []
    for one in eval_sets(groups):
        prefix = f"{format.clipped(one.name, CLIPPED)} · " if one.name else ""
        told += [replace(statement, title=prefix + statement.title) for statement in _of_field(one, examples)]
    return [*told, *_state(groups)]


def _of_field(one: EvalSet, examples: ExampleScores) -> list[Statement]:
    groups, main = one.rows, metrics.get(metrics.main(one.task))
    ranked = _ranked(groups, main)
    if not ranked:
        return []
    found = mark_best(groups, main, examples)
    marked = {groups[place].label for place in found.best}
    ties = [group for group in ranked[1:] if not marked or group.label in marked]
    better = [g for g in ranked if above(g, max(floors(g, main).values(), default=None), main, examples)]
    worth = [group for group in (ranked[0], *ties) if group in better]
    first, recommended = _first(ranked, main, examples, better=ranked[0] in better), ranked[0] in better
    floor = _floor(ranked, main, examples)
    return [
        *([] if recommended else floor),
        first,
        *_tie(ranked, ties, found, main, "best" if recommended else "highest"),
        *(_cheapest(worth, main) if recommended else []),
        *_under(better, groups, main),
        *(floor if recommended else []),
    ]


def _ranked(groups: Sequence[Row], main: Metric) -> list[Row]:
    """Those with a score, the best first."""
    scored = [(value, group) for group in groups if (value := group.mean(main)) is not None]
    return [group for _, group in sorted(scored, key=lambda pair: pair[0] * _sign(main))]


def _sign(metric: Metric) -> int:
    """What makes better values smaller."""
    return -1 if metric.direction == "higher" else 1


def _value(group: Row, metric: Metric) -> str:
    return _with_unit(group.mean(metric), metric)


def _with_unit(value: float | None, metric: Metric) -> str:
    return f"{format.number(value, metric.digits)} {metric.unit}".strip()


def _named(groups: Sequence[Row], metric: Metric) -> tuple[Named, ...]:
    return tuple(
        Named(label=g.label, value=_value(g, metric), cells=tuple(cell.cell_id for cell in g.cells))
        for g in groups[:MOST_NAMED]
    )


def _statement(kind: Any, title: str, words: str, groups: Sequence[Row], metric: Metric) -> Statement:
    return Statement(
        kind=kind, title=title, text=words, named=_named(groups, metric), more=max(0, len(groups) - MOST_NAMED)
    )


def _first(ranked: Sequence[Row], main: Metric, examples: ExampleScores, *, better: bool) -> Statement:
    """Who has the best score; called the best only where it beats all baselines."""
    first = ranked[0]
    known = statistics.interval(first, main, examples)
    words = _value(first, main)
    if known and known.low is not None and known.high is not None:
        low, high = format.number(known.low, main.digits), format.number(known.high, main.digits)
        words += f", 95 % interval {low} to {high}"
    if known and known.n:
        words += f", n = {known.n:,}"
    words += f", {format.counted(len(first.ok), 'seed')}."
    if len(first.ok) == 1:
        words += " The interval covers the choice of test examples, not what another seed would change."
    if len(baselines_of(ranked)) > 1:
        words += " Not all cells were scored on the same test examples: compare with care."
    facts = metrics.task_scores().get(main.name)
    name = (facts.title if facts else "") or main.header
    shown = name if name.isupper() else name[0].lower() + name[1:]  # MCC stays
    rank = "Only" if len(ranked) == 1 else "Best" if better else "Highest"
    return _statement("best" if better else "state", f"{rank} {shown}: {first.label}", words, [first], main)


def _tie(ranked: Sequence[Row], ties: Sequence[Row], found: BestMarks, main: Metric, called: str) -> list[Statement]:
    """Who is not told apart from the best (``called`` so), by the same tests as in the table."""
    if len(ranked) < 2:
        return []
    if found.noise_unknown:
        return [_statement("tie", "How sure this is, is not known", "There are no examples to compare by.", [], main)]
    how = "paired on the test examples that cells share; 5 % level, corrected for several comparisons by Holm's method"
    if not ties:
        words = f"Every other cell is worse beyond the noise (tests {how})."
        return [_statement("tie", "Told apart from all others", words, [], main)]
    noun, them = ("cell is", "it is") if len(ties) == 1 else ("cells are", "they are")
    words = f"Tests do not tell the difference from chance ({how}). That does not show that {them} as good."
    return [_statement("tie", f"{len(ties)} other {noun} not told apart from the {called}", words, ties, main)]


def _cheapest(candidates: Sequence[Row], main: Metric) -> list[Statement]:
    """Of the best and what is not told apart from it, by parameters and by memory."""
    if len(candidates) < 2:
        return []
    words: list[str] = []
    cheapest: list[Row] = []
    shown: list[Cost] = []
    for name, verb in (("params", "trains"), (NEEDED, "needs")):
        metric = metrics.get(name)
        costs = [(cost, group) for group in candidates if (cost := _cost(group, metric)) is not None]
        if not costs:
            continue
        cost, group = min(costs, key=lambda pair: pair[0].value)
        shown.append(cost)
        if len({known.text for known, _ in costs}) == 1:
            words.append(f"each {verb} {cost.text} {_of_what(metric)}")
            continue
        best = _cost(candidates[0], metric)
        itself = " (the best itself)" if group is candidates[0] else ""
        beside = f", the best {best.text}" if best and not itself else ""
        words.append(f"{group.label}{itself} {verb} {cost.text} {_of_what(metric)}{beside}")
        cheapest.append(group)
        shown += [best] if best else []
    if not cheapest:
        return []
    named = list({group.label: group for group in (*cheapest, candidates[0])}.values())
    return [_statement("cost", "Cheapest of these", "; ".join(words) + "." + _about(shown, candidates), named, main)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a group costs."""

    value: float
    predicted: bool
    text: str
    """With its unit, and its mark if it is predicted."""


def _cost(group: Row, metric: Metric) -> Cost | None:
    """The measured cost, else the predicted one."""
    measured = group.mean(metric)
    value = group.predicted(metric) if measured is None else measured
    if value is None:
        return None
    shown = _with_unit(value, metric)
    return Cost(value=value, predicted=measured is None, text=format.predicted(shown) if measured is None else shown)


def _of_what(metric: Metric) -> str:
    return "of the parameters" if metric.name == "params" else "of GPU memory"


def _about(costs: Sequence[Cost], groups: Sequence[Row]) -> str:
    """What must be known to read these costs."""
    tag = "" if captions.is_published_setting(groups) else captions.scale_tag(groups[0].cells[0].scale)
    words = f" {format.PREDICTED}: predicted for a CUDA GPU, not measured." if any(c.predicted for c in costs) else ""
    return words + (f" This is the {tag.lower()}'s model, not the published one." if tag else "")


def _under(better: Sequence[Row], every: Sequence[Row], main: Metric) -> list[Statement]:
    """The best that fits each size of GPU, where the answer changes."""
    metric = metrics.get(NEEDED)
    needs = [(need, group) for group in better if (need := _cost(group, metric)) is not None]
    told: list[tuple[int, Cost, Row]] = []
    for size in CARDS_GIB:
        fitting = next(((need, group) for need, group in needs if need.value <= size), None)
        if fitting is not None and (not told or told[-1][2] is not fitting[1]):
            told.append((size, *fitting))
    known = [(need, group) for group in every if (need := _cost(group, metric)) is not None]
    if len(told) == 1 and max(need.value for need, _ in known) <= told[0][0]:
        return [_all_fit(told[0][0], told[0][2], known, every, main)]
    return [
        _statement(
            "cost",
            f"Best under {size} GB: {group.label}",
            f"{_value(group, main)}; needs {need.text} {_of_what(metric)}.{_about([need], every)}",
            [group],
            main,
        )
        for size, need, group in told
    ]


def _all_fit(size: int, best: Row, known: Sequence[tuple[Cost, Row]], every: Sequence[Row], main: Metric) -> Statement:
    most, largest = max(known, key=lambda pair: pair[0].value)
    who = "Every cell" if len(known) == len(every) else f"Each of the {len(known)} cells whose need is known"
    words = f"{who} fits there: {largest.label} needs most, {most.text} {_of_what(metrics.get(NEEDED))}."
    named = [best] if largest is best else [best, largest]
    return _statement("cost", f"Best under {size} GB: {best.label}", words + _about([most], every), named, main)


def _floor(ranked: Sequence[Row], main: Metric, examples: ExampleScores) -> list[Statement]:
    """Which cells are not better than an answer without a look at the input, or than one answer to everything."""
    known = [(group, found) for group in ranked if (found := floors(group, main))]
    if not known:
        return []
    prior = next(iter(known[0][1]))
    values = sorted({next(iter(found.values())) for _, found in known})
    shown = f"{prior.lower()} ({_range(values, main)})"
    source = known[0][0].ok[0].cell_id
    below = [(group, found) for group, found in known if not above(group, next(iter(found.values())), main, examples)]
    if not below:
        title = f"All are better than {prior.lower()}" if len(ranked) > 1 else f"Better than {prior.lower()}"
        who = "Every scored cell" if len(ranked) > 1 else "The cell"
        words = f"{who} is beyond the noise above {shown}, an answer without a look at the input."
        return [replace(_statement("good", title, words, [], main), source=source)]
    their, lie = ("Its interval reaches", "lies") if len(below) == 1 else ("Their intervals reach", "lie")
    words = f"{their} down to {shown}, which takes no look at the input, or {lie} below it."
    groups = [group for group, _ in below]
    return [
        replace(_statement("floor", _not_better(groups, ranked, prior), words, groups, main), source=source),
        *_constant(below, ranked, main, examples),
    ]


def _constant(
    below: Sequence[tuple[Row, Mapping[str, float]]], ranked: Sequence[Row], main: Metric, examples: ExampleScores
) -> list[Statement]:
    """Those that are not better than the best of the other baselines, either."""
    best = {g.label: max(list(f.items())[1:], key=lambda pair: pair[1], default=None) for g, f in below}
    worse = [
        (group, name, value)
        for group, _ in below
        if (pair := best[group.label]) and not above(group, value := pair[1], main, examples) and (name := pair[0])
    ]
    if not worse:
        return []
    words = f"That alone scores {_range(sorted({value for _, _, value in worse}), main)}."
    groups = [group for group, _, _ in worse]
    named = groups if len(worse) < len(below) else []
    statement = _statement("floor", _not_better(groups, ranked, worse[0][1]), words, named, main)
    return [replace(statement, source=groups[0].ok[0].cell_id)]


def _range(values: Sequence[float], metric: Metric) -> str:
    least, most = format.number(values[0], metric.digits), _with_unit(values[-1], metric)
    return most if len(values) == 1 else f"{least} to {most}, on the cells' own examples"


def _not_better(some: Sequence[Row], every: Sequence[Row], baseline: str) -> str:
    than = f"better than {baseline.lower()}"
    if len(some) == len(every) > 1:
        return f"No cell is {than}"
    return f"{some[0].label} is not {than}" if len(some) == 1 else f"{len(some)} of {len(every)} cells are not {than}"


def _state(groups: Sequence[Row]) -> list[Statement]:
    """How the cells ended."""
    cells = [group.outcome(record) for group in groups for record in group.records]
    ends = Counter(cells)
    ok = ends.pop("", 0)
    if not ends:
        title = f"All {ok:,} cells ended well" if ok > 1 else "The only cell ended well"
        return [Statement(kind="good", title=title, text="")]
    failed = [group for group in groups if group.status]
    words = "; ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
    named = tuple(
        Named(label=g.label, value=format.clipped(g.status, 90), cells=tuple(cell.cell_id for cell in g.cells))
        for g in failed[:MOST_NAMED]
    )
    more = max(0, len(failed) - MOST_NAMED)
    title = f"{ok} of {format.counted(len(cells), 'cell')} ended well"
    return [Statement(kind="failed", title=title, text=f"{words}.", named=named, more=more)]

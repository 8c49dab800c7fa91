"""The summary in plain words, and the intervals behind it; everything computed from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench import metrics
from bench.metrics import Metric
from bench.report import text, uncertainty
from bench.report.contest import Contest, contest
from bench.report.groups import Group, baselines_of
from bench.report.html.floors import above, floors
from bench.report.html.rows import Axis, short
from bench.report.outcomes import Outcomes

if TYPE_CHECKING:
    from bench.spec.models import Spec

CARDS_GIB = (8, 12, 16, 24, 32, 40, 48, 80)
"""Memory of GPUs that people have."""
NEEDED = "memory_nvml"
"""The metric that says what a process needs on a GPU."""
MOST_NAMED = 8


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


def intervals(group: Group, found: Sequence[Axis], outcomes: Outcomes) -> dict[str, Any]:
    """Axis -> [low, high, standard deviation or null, kind], of every measured value that has an interval."""
    told = {}
    for axis in found:
        if axis.predicted or (axis.metric.score is None and len(group.ok) < 2):
            continue
        spread = uncertainty.spread(group, axis.metric, outcomes)
        if spread and spread.low is not None and spread.high is not None:
            std = None if spread.std is None else short(spread.std)
            told[axis.key] = [short(spread.low), short(spread.high), std, spread.kind]
    return told


def summary(spec: Spec, groups: Sequence[Group], outcomes: Outcomes) -> list[Statement]:
    """In the order that a reader decides in."""
    main = metrics.get(metrics.main(spec.task.name))
    ranked = _ranked(groups, main)
    if not ranked:
        return _state(groups)
    found = contest(groups, main, outcomes)
    marked = {groups[place].label for place in found.best}
    ties = [group for group in ranked[1:] if not marked or group.label in marked]
    better = [g for g in ranked if above(g, max(floors(g, main).values(), default=None), main, outcomes)]
    worth = [group for group in (ranked[0], *ties) if group in better]
    return [
        _best(ranked[0], main, outcomes, better=ranked[0] in better, mixed=len(baselines_of(groups)) > 1),
        *_tie(ranked, ties, found, main),
        *(_cheapest(worth, main) if ranked[0] in better else []),
        *_under(better, main),
        *_floor(ranked, main, outcomes),
        *_state(groups),
    ]


def _ranked(groups: Sequence[Group], main: Metric) -> list[Group]:
    """Those with a score, the best first."""
    scored = [(value, group) for group in groups if (value := group.mean(main)) is not None]
    return [group for _, group in sorted(scored, key=lambda pair: pair[0] * _sign(main))]


def _sign(metric: Metric) -> int:
    """What makes better values smaller."""
    return -1 if metric.direction == "higher" else 1


def _value(group: Group, metric: Metric) -> str:
    return _with_unit(group.mean(metric), metric)


def _with_unit(value: float | None, metric: Metric) -> str:
    return f"{text.number(value, metric.digits)} {metric.unit}".strip()


def _named(groups: Sequence[Group], metric: Metric) -> tuple[Named, ...]:
    return tuple(
        Named(label=g.label, value=_value(g, metric), cells=tuple(cell.cell_id for cell in g.cells))
        for g in groups[:MOST_NAMED]
    )


def _statement(kind: Any, title: str, words: str, groups: Sequence[Group], metric: Metric) -> Statement:
    return Statement(
        kind=kind, title=title, text=words, named=_named(groups, metric), more=max(0, len(groups) - MOST_NAMED)
    )


def _best(best: Group, main: Metric, outcomes: Outcomes, *, better: bool, mixed: bool) -> Statement:
    spread = uncertainty.spread(best, main, outcomes)
    words = _value(best, main)
    if spread and spread.low is not None and spread.high is not None:
        low, high = text.number(spread.low, main.digits), text.number(spread.high, main.digits)
        words += f", 95 % interval {low} to {high}"
    if spread and spread.n:
        words += f", n = {spread.n:,}"
    words += f", {text.counted(len(best.ok), 'seed')}."
    if mixed:
        words += " Not all cells were scored on the same test examples: compare with care."
    kind, title = ("best", "Best") if better else ("state", "Highest")
    facts = metrics.task_scores().get(main.name)
    name = (facts.title if facts else "") or main.header
    shown = name if name.isupper() else name[0].lower() + name[1:]  # MCC stays
    return _statement(kind, f"{title} {shown}: {best.label}", words, [best], main)


def _tie(ranked: Sequence[Group], ties: Sequence[Group], found: Contest, main: Metric) -> list[Statement]:
    """Who is not told apart from the best, by the same tests as in the table."""
    if len(ranked) < 2:
        return []
    if found.noise_unknown:
        return [_statement("tie", "How sure this is, is not known", "There are no examples to compare by.", [], main)]
    how = "paired on the test examples that cells share; at 95 %, corrected for several comparisons by Holm's method"
    if not ties:
        return [
            _statement(
                "tie", "Told apart from all others", f"Every other cell is worse beyond the noise ({how}).", [], main
            )
        ]
    noun = "cell is" if len(ties) == 1 else "cells are"
    words = f"Their distance to the best is inside the noise ({how})."
    return [_statement("tie", f"{len(ties)} other {noun} not told apart from the best", words, ties, main)]


def _cheapest(candidates: Sequence[Group], main: Metric) -> list[Statement]:
    """Of the best and what is not told apart from it, by parameters and by memory."""
    if len(candidates) < 2:
        return []
    told: list[tuple[Group, str]] = []
    for name, verb in (("params", "trains"), (NEEDED, "needs")):
        metric = metrics.get(name)
        costs = [(cost, group) for group in candidates if (cost := _cost(group, metric)) is not None]
        if not costs:
            continue
        cost, group = min(costs, key=lambda pair: pair[0][0])
        best = _cost(candidates[0], metric)
        beside = f", the best {_cost_text(best, metric)}" if best and group is not candidates[0] else ""
        told.append((group, f"{group.label} {verb} {_cost_text(cost, metric)}{beside}"))
    words = "; ".join(words for _, words in told)
    named = list({group.label: group for group, _ in told}.values())
    return [_statement("cost", "Cheapest of these", f"{words}.", named, main)] if told else []


def _cost(group: Group, metric: Metric) -> tuple[float, bool] | None:
    """The measured cost, else the predicted one; and whether it is predicted."""
    measured = group.mean(metric)
    if measured is not None:
        return measured, False
    predicted = group.predicted(metric)
    return None if predicted is None else (predicted, True)


def _cost_text(cost: tuple[float, bool], metric: Metric) -> str:
    value, predicted = cost
    shown = _with_unit(value, metric)
    what = " of the parameters" if metric.name == "params" else " of GPU memory"
    return (text.predicted(shown) if predicted else shown) + what


def _under(ranked: Sequence[Group], main: Metric) -> list[Statement]:
    """The best that fits each size of GPU, where the answer changes."""
    metric = metrics.get(NEEDED)
    needs = [(need[0], group) for group in ranked if (need := _cost(group, metric)) is not None]
    if not needs:
        return []
    told: list[tuple[int, Group]] = []
    for size in CARDS_GIB:
        fitting = next((group for need, group in needs if need <= size), None)
        if fitting is not None and (not told or told[-1][1] is not fitting):
            told.append((size, fitting))
    sizes = [need for need, _ in needs]
    if len(told) == 1 and max(sizes) <= told[0][0]:
        about = f"All cells fit: the largest needs {_cost_text(_most(ranked, metric), metric)}."
        return [_statement("cost", f"Best under {told[0][0]} GB: {told[0][1].label}", about, [told[0][1]], main)]
    return [
        _statement(
            "cost",
            f"Best under {size} GB: {group.label}",
            f"{_value(group, main)}; needs {_cost_text(need, metric)}.",
            [group],
            main,
        )
        for size, group in told
        if (need := _cost(group, metric)) is not None
    ]


def _most(groups: Sequence[Group], metric: Metric) -> tuple[float, bool]:
    return max(cost for group in groups if (cost := _cost(group, metric)) is not None)


def _floor(ranked: Sequence[Group], main: Metric, outcomes: Outcomes) -> list[Statement]:
    """Which cells are not better than an answer without a look at the input, or than one answer to everything."""
    known = [(group, found) for group in ranked if (found := floors(group, main))]
    if not known:
        return []
    prior = next(iter(known[0][1]))
    values = sorted({next(iter(found.values())) for _, found in known})
    shown = f"{prior.lower()} ({_range(values, main)})"
    below = [(group, found) for group, found in known if not above(group, next(iter(found.values())), main, outcomes)]
    if not below:
        words = f"Every cell is above {shown}: what can be scored without a look at the input."
        return [_statement("good", f"All are better than {prior.lower()}", words, [], main)]
    words = f"Their intervals reach down to {shown}, which takes no look at the input, or lie below it."
    groups = [group for group, _ in below]
    return [
        _statement("floor", _not_better(groups, ranked, prior), words, groups, main),
        *_constant(below, ranked, main, outcomes),
    ]


def _constant(
    below: Sequence[tuple[Group, Mapping[str, float]]], ranked: Sequence[Group], main: Metric, outcomes: Outcomes
) -> list[Statement]:
    """Those that are not better than the best of the other baselines, either."""
    best = {g.label: max(list(f.items())[1:], key=lambda pair: pair[1], default=None) for g, f in below}
    worse = [
        (group, name, value)
        for group, _ in below
        if (pair := best[group.label]) and not above(group, value := pair[1], main, outcomes) and (name := pair[0])
    ]
    if not worse:
        return []
    words = f"That alone scores {_range(sorted({value for _, _, value in worse}), main)}."
    groups = [group for group, _, _ in worse]
    named = groups if len(worse) < len(below) else []
    return [_statement("floor", _not_better(groups, ranked, worse[0][1]), words, named, main)]


def _range(values: Sequence[float], metric: Metric) -> str:
    least, most = text.number(values[0], metric.digits), _with_unit(values[-1], metric)
    return most if len(values) == 1 else f"{least} to {most}, on the cells' own examples"


def _not_better(some: Sequence[Group], every: Sequence[Group], baseline: str) -> str:
    than = f"better than {baseline.lower()}"
    if len(some) == len(every):
        return f"No cell is {than}"
    return f"{some[0].label} is not {than}" if len(some) == 1 else f"{len(some)} of {len(every)} cells are not {than}"


def _state(groups: Sequence[Group]) -> list[Statement]:
    """How the cells ended."""
    cells = [record for group in groups for record in group.records]
    ends = Counter(text.outcome(record) for record in cells)
    ok = ends.pop("", 0)
    if not ends:
        return [Statement(kind="good", title=f"All {text.counted(ok, 'cell')} ended well", text="")]
    failed = [group for group in groups if group.status]
    words = "; ".join(f"{count:,} {end}" for end, count in sorted(ends.items()))
    named = tuple(
        Named(label=g.label, value=text.clipped(g.status, 90), cells=tuple(cell.cell_id for cell in g.cells))
        for g in failed[:MOST_NAMED]
    )
    more = max(0, len(failed) - MOST_NAMED)
    title = f"{ok} of {text.counted(len(cells), 'cell')} ended well"
    return [Statement(kind="failed", title=title, text=f"{words}.", named=named, more=more)]

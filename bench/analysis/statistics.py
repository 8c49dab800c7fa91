"""Uncertainty and significance: 95 % intervals of a metric, tests of differences, correction for many tests.

Two things are random about a score: which examples make up the test set, and which seed trained the model. Examples are
resampled with replacement, the same ones for every cell scored on them; seeds likewise where there are several. With
one seed, interval and test cover the examples alone.

Sources: Wilson (1927) for the interval of a share; McNemar's exact test (1947), and Bonett and Price (2012) for the
interval of a paired difference of shares; bootstrap of examples and seeds as crossed factors after Owen (2007, "The
pigeonhole bootstrap"), widened for few seeds after Hesterberg (2015, expanded percentile interval) with the degrees of
freedom of Welch and Satterthwaite; Holm (1979) for many tests.
"""

# scipy.stats takes more than a second to import, so its formulas stand here; tests compare the two on random input.
# numpy is imported where it is used, as a report without predictions does without it.

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from bench import metrics
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row
from bench.metrics import Metric
from bench.records.scores import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ALPHA = 0.05
Z = statistics.NormalDist().inv_cdf(1 - ALPHA / 2)
RESAMPLES = 2000
MAX_RESAMPLED = 5000
"""With more examples, their bootstrap distribution is drawn from its normal limit."""
REMEMBERED = 1 << 14
"""Results kept: table, plot and page ask for the same ones."""

IntervalKind = Literal["wilson", "examples", "examples and seeds", "counts and seeds", "seeds", "none"]
DifferenceKind = Literal["mcnemar", "paired", "unpaired", "seeds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A metric's mean over the seeds of a row with its 95 % interval, in the metric's unit."""

    mean: float
    std: float | None
    """Standard deviation over the seeds; null with one."""
    low: float | None
    """Bounds; null where the noise is unknown."""
    high: float | None
    n: int | None
    """Examples per seed (the fewest, if seeds differ); null for what is no score."""
    kind: IntervalKind
    """Its source. ``wilson``: one seed, a share of ``n``; ``examples``: one seed, bootstrap; ``examples and seeds``:
    bootstrap of both; ``counts and seeds``: Student's t, where scores of single examples are unknown; ``seeds``:
    Student's t over the seeds alone; ``none``: no interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row's metric minus another's, in the metric's unit."""

    mean: float
    low: float
    """Bounds of the 95 % interval. Where it and the test disagree, at the very border, the test counts."""
    high: float
    p: float
    """Two-sided p value, not corrected for several comparisons."""
    kind: DifferenceKind
    """``mcnemar``: exact, right or wrong on the same examples, one seed each; ``paired``: bootstrap over the same
    examples, and over the seeds where there are several; ``unpaired``: examples that differ or are unknown;
    ``seeds``: Welch's t test over the seeds."""

    @property
    def significant(self) -> bool:
        """Whether the rows differ at the 5 % level, if this is the only comparison made."""
        return self.p < ALPHA


@dataclass(frozen=True, slots=True)
class VarianceTerm:
    """One source of the variance of a mean, with the degrees of freedom of its estimate."""

    variance: float
    dof: float

    @classmethod
    def of_mean(cls, values: Array) -> VarianceTerm:
        return cls(float(values.var(ddof=1)) / len(values), len(values) - 1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Observations:
    """All measurements of a row by one metric; values and variances in the metric's unit."""

    values: list[float]
    """One per seed."""
    seeds: list[int]
    cells: list[str]
    scores: list[Score]
    """One per seed; empty for what is no score."""
    factor: float
    """From an example's score to the unit; 0 for what is no score."""
    bounds: tuple[float, float] | None
    """Least and largest possible score; null where unknown."""
    ids: tuple[str, ...]
    matrix: Array | None
    """(seeds, examples): scores of single examples; null if unknown, or if the seeds differ in their examples."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def n(self) -> int | None:
        return min((score.n for score in self.scores), default=None)

    @property
    def is_share(self) -> bool:
        return bool(self.scores) and all(score.correct is not None and score.n for score in self.scores)

    @property
    def share(self) -> float:
        """Mean over the seeds, without the unit."""
        return statistics.fmean(score.value or 0.0 for score in self.scores)

    @property
    def agresti_caffo_share(self) -> float:
        """The share with one more right and one more wrong (Agresti and Caffo 2000): a share of 0 or 1 is not
        certain."""
        return (self.share * self.n + 1) / (self.n + 2) if self.n is not None else self.share

    def seed_variance(self) -> VarianceTerm | None:
        """Null with one seed."""
        n = len(self.values)
        return VarianceTerm(statistics.variance(self.values) / n, n - 1) if n > 1 else None

    def example_variance(self) -> VarianceTerm | None:
        """Null where scores of single examples are unknown."""
        if self.is_share and self.n is not None:
            share = self.agresti_caffo_share
            return VarianceTerm(self.factor**2 * share * (1 - share) / (self.n + 2), math.inf)
        if self.matrix is not None and len(self.ids) > 1:
            return VarianceTerm.of_mean(self.factor * self.matrix.mean(axis=0))
        return None


@lru_cache(maxsize=REMEMBERED)
def _observe(row: Row, metric: Metric, examples: ExampleScores) -> Observations | None:
    records = [record for record in row.ok if metric.value(record) is not None]
    if not records:
        return None
    name = metrics.underlying_score(records[0], metric.name)
    facts = metrics.task_scores()[name] if name else None
    scores = [score for record in records if name and (score := record.score(name)) is not None]
    samples = [sample for record in records if (sample := examples.sample(record, metric.name)) is not None]
    matrix = None
    if len(samples) == len(records) and all(sample.ids is samples[0].ids for sample in samples):
        import numpy as np

        matrix = np.stack([sample.values for sample in samples])
    return Observations(
        values=[value for record in records if (value := metric.value(record)) is not None],
        seeds=[record.seed for record in records],
        cells=[record.cell_id for record in records],
        scores=scores if len(scores) == len(records) else [],
        factor=facts.factor if facts else 0.0,
        bounds=(facts.factor * facts.lowest, facts.factor) if facts and name == metric.name else None,
        ids=() if matrix is None else samples[0].ids,
        matrix=matrix,
    )


# --- intervals -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=REMEMBERED)
def interval(row: Row, metric: Metric, examples: ExampleScores) -> Interval | None:
    """Mean, standard deviation and 95 % interval of a row; null if it was not measured."""
    found = _observe(row, metric, examples)
    if found is None:
        return None
    low, high, kind = _bounds(found)
    if found.bounds and low is not None and high is not None:
        low, high = max(low, found.bounds[0]), min(high, found.bounds[1])
    std = statistics.stdev(found.values) if len(found.values) > 1 else None
    return Interval(mean=found.mean, std=std, low=low, high=high, n=found.n, kind=kind)


def _bounds(found: Observations) -> tuple[float | None, float | None, IntervalKind]:
    several = len(found.values) > 1
    if found.is_share and found.n and (not several or found.share in (0, 1)):
        # Seeds that agree on every example have no spread to bootstrap, so Wilson's interval serves them, too.
        base, (low, high) = found.mean - found.factor * found.share, wilson(found.share, found.n)
        return base + found.factor * low, base + found.factor * high, "examples and seeds" if several else "wilson"
    # Where all examples score alike, resampling them would look like certainty.
    varied = found.matrix is not None and float(found.matrix.max() - found.matrix.min()) > 1e-12
    if found.matrix is not None and len(found.ids) > 1 and (several or varied):
        low, high, _ = bootstrap(found.factor * found.matrix.mean(axis=0), [found.values], found.ids, found.cells)
        return found.mean + low, found.mean + high, "examples and seeds" if several else "examples"
    if (seeds := found.seed_variance()) is None:
        return None, None, "none"
    of_examples = found.example_variance()
    half = _half_width([of_examples, seeds] if of_examples else [seeds])
    return found.mean - half, found.mean + half, "counts and seeds" if of_examples else "seeds"


def wilson(share: float, n: int) -> tuple[float, float]:
    """Score interval of a share of ``n``, as ``scipy.stats.binomtest(...).proportion_ci(method="wilson")``."""
    scale, centre = 1 + Z**2 / n, share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


# --- tests -----------------------------------------------------------------------------------------------------


def difference(a: Row, b: Row, metric: Metric, examples: ExampleScores) -> Difference | None:
    """``a`` minus ``b`` with interval and test; null if either was not measured, or the noise is unknown."""
    ours, theirs = _observe(a, metric, examples), _observe(b, metric, examples)
    if ours is None or theirs is None:
        return None
    if ours.matrix is not None and theirs.matrix is not None and ours.ids == theirs.ids:
        if all(len(found.values) == 1 and found.is_share for found in (ours, theirs)):
            return _right_or_wrong(ours, theirs, ours.matrix[0] - theirs.matrix[0])
        if len(ours.ids) > 1:
            return _paired(ours, theirs, ours.matrix.mean(axis=0) - theirs.matrix.mean(axis=0))
    return _unpaired(ours, theirs)


def _right_or_wrong(ours: Observations, theirs: Observations, apart: Array) -> Difference:
    more, fewer, n = int((apart > 0).sum()), int((apart < 0).sum()), len(apart)
    # Bonett and Price: one more example of each kind, so that few differing examples do not look like certainty.
    up, down = (more + 1) / (n + 2), (fewer + 1) / (n + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    mean, centre = ours.mean - theirs.mean, ours.factor * (up - down)
    low, high = max(-ours.factor, centre - ours.factor * half), min(ours.factor, centre + ours.factor * half)
    return Difference(mean=mean, low=low, high=high, p=mcnemar(more, fewer), kind="mcnemar")


def mcnemar(more: int, fewer: int) -> float:
    """Two-sided p of McNemar's exact test, as ``scipy.stats.binomtest(more, more + fewer)``.

    ``more``: examples that only one row answers; ``fewer``: that only the other does.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(more, fewer), more + fewer, 0.5))) if more != fewer else 1.0


def _paired(ours: Observations, theirs: Observations, apart: Array) -> Difference:
    """Over examples as pairs; over seeds, too, if both rows have the same."""
    mean = ours.mean - theirs.mean
    if sorted(ours.seeds) == sorted(theirs.seeds):
        other = dict(zip(theirs.seeds, theirs.values, strict=True))
        by_seed = [[value - other[seed] for seed, value in zip(ours.seeds, ours.values, strict=True)]]
    else:
        by_seed = [ours.values, theirs.values]
    low, high, terms = bootstrap(ours.factor * apart, by_seed, ours.ids, [*ours.cells, *theirs.cells])
    differing = int((abs(ours.factor * apart) > 1e-12).sum())
    # No exact test that flips the signs of the differing examples has a smaller p.
    p = max(_two_sided(mean, terms), 0.5 ** (differing - 1)) if differing else 1.0
    return Difference(mean=mean, low=mean + low, high=mean + high, p=p, kind="paired")


def _unpaired(ours: Observations, theirs: Observations) -> Difference | None:
    """Over the examples of each, if known, and the seeds of each; one seed is taken to vary as the other row's do."""
    examples = [term for term in (ours.example_variance(), theirs.example_variance()) if term is not None]
    terms = examples if len(examples) == 2 else []
    seeds = [term for term in (ours.seed_variance(), theirs.seed_variance()) if term is not None]
    if len(seeds) == 1:
        n = max(len(ours.values), len(theirs.values))
        seeds.append(VarianceTerm(seeds[0].variance * n, seeds[0].dof))
    if not terms and not seeds:
        return None
    mean, half = ours.mean - theirs.mean, _half_width([*terms, *seeds])
    centre = mean
    if terms and ours.is_share and theirs.is_share:
        centre += ours.factor * (ours.agresti_caffo_share - ours.share - theirs.agresti_caffo_share + theirs.share)
    p = _two_sided(centre, [*terms, *seeds])
    return Difference(mean=mean, low=centre - half, high=centre + half, p=p, kind="unpaired" if terms else "seeds")


def holm(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """p values corrected step-down for ``tests`` tests, of which these are some (null: all)."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[i] * ((tests or len(p_values)) - rank)))
        adjusted[i] = least
    return adjusted


# --- bootstrap -------------------------------------------------------------------------------------------------


def bootstrap(
    by_example: Array, by_seed: Sequence[Sequence[float]], ids: tuple[str, ...], cells: Sequence[str]
) -> tuple[float, float, list[VarianceTerm]]:
    """95 % bounds of a mean's deviation, and the terms of its variance.

    ``by_example``: (examples,), means over the seeds; ``by_seed``: values of independent sets of seeds, each resampled
    by itself; a set of one seed has the noise of the largest set.
    """
    import numpy as np

    largest = max(by_seed, key=len)
    drawn = _resampled_means(by_example, ids)
    terms = [VarianceTerm.of_mean(by_example)]
    random = np.random.default_rng(_seed(sorted(cells)))
    for values in by_seed if len(largest) > 1 else ():
        known = np.array(values if len(values) > 1 else largest, dtype=np.float64)
        picks = random.integers(0, len(known), (RESAMPLES, len(values)))
        unbiased = math.sqrt(len(known) / (len(known) - 1))
        drawn = drawn + unbiased * (known - known.mean())[picks].mean(axis=1)
        terms.append(VarianceTerm(float(known.var(ddof=1)) / len(values), len(known) - 1))
    wider = _quantile(_error(terms)[1]) / Z
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return wider * float(low), wider * float(high), terms


def _resampled_means(values: Array, ids: tuple[str, ...]) -> Array:
    """(resamples,): how far the mean of resampled examples is from that of all."""
    import numpy as np

    if len(values) > MAX_RESAMPLED:
        error = math.sqrt(VarianceTerm.of_mean(values).variance)
        return np.random.default_rng(_seed(ids)).normal(0.0, error, RESAMPLES)
    deviations: Array = _draw_counts(ids) @ (values - values.mean()) / len(values)
    return deviations


@lru_cache(maxsize=6)
def _draw_counts(ids: tuple[str, ...]) -> Array:
    """(resamples, examples): how often each example is drawn; the same for all cells that share the examples."""
    import numpy as np

    n = len(ids)
    random = np.random.default_rng(_seed(ids))
    return np.stack([np.bincount(random.integers(0, n, n), minlength=n) for _ in range(RESAMPLES)]).astype(np.float32)


def _seed(names: Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\n".join(names).encode("utf-8", "replace"), digest_size=8).digest())


# --- Student's t -----------------------------------------------------------------------------------------------

_NORMAL_DOF = 1e9
"""With more degrees of freedom, Student's t is the normal distribution."""


def _error(terms: Sequence[VarianceTerm]) -> tuple[float, float]:
    """Standard error of a mean, and its degrees of freedom after Welch and Satterthwaite."""
    variance = sum(term.variance for term in terms)
    below = sum(term.variance**2 / term.dof for term in terms)
    return math.sqrt(variance), variance**2 / below if below else math.inf


def _quantile(dof: float) -> float:
    """Student's t at 97.5 %."""
    if dof > _NORMAL_DOF:
        return Z
    from scipy.special import stdtrit

    return float(stdtrit(dof, 1 - ALPHA / 2))


def _half_width(terms: Sequence[VarianceTerm]) -> float:
    error, dof = _error(terms)
    return _quantile(dof) * error


def _two_sided(mean: float, terms: Sequence[VarianceTerm]) -> float:
    error, dof = _error(terms)
    if abs(mean) < 1e-9 or not error:
        return 1.0 if abs(mean) < 1e-9 else 0.0
    if dof > _NORMAL_DOF:
        return 2 * statistics.NormalDist().cdf(-abs(mean) / error)
    from scipy.special import stdtr

    return 2 * float(stdtr(dof, -abs(mean) / error))

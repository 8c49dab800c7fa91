"""How sure a number is, and whether two numbers differ: intervals at 95 %, paired tests.

What is random about a score: which examples make up the test set, and which seed trained the model. Examples are
resampled with replacement, the same ones for every cell that was asked the same questions; seeds likewise where there
are several. With one seed nothing is known of the seeds: interval and test then speak of the examples alone.

Sources: Wilson (1927) for the interval of a share; McNemar (1947), in its exact form, and Bonett and Price (2012) for
the difference of two shares of the same examples; bootstrap of examples and seeds as crossed factors after Owen (2007,
"The pigeonhole bootstrap"), widened for few seeds after Hesterberg (2015, "What Teachers Should Know About the
Bootstrap", expanded percentile interval) with the degrees of freedom of Welch and Satterthwaite.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from bench import metrics
from bench.analysis.predictions import ExampleScores, remembered
from bench.analysis.rows import Row
from bench.metrics import Metric
from bench.records.scores import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 1 - CONFIDENCE
Z = statistics.NormalDist().inv_cdf(1 - ALPHA / 2)
RESAMPLES = 2000
FINITE = 5000
"""With more examples than this their bootstrap distribution is drawn from the normal one it comes to."""

SpreadKind = Literal["wilson", "examples", "examples and seeds", "counts and seeds", "seeds", "none"]
DifferenceKind = Literal["mcnemar", "paired", "unpaired", "seeds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A metric of a group over its seeds, in the metric's unit."""

    mean: float
    std: float | None
    """Standard deviation over the seeds; null with one."""
    seeds: int
    low: float | None
    """Bounds of the interval at 95 %; null where nothing is known of it."""
    high: float | None
    n: int | None
    """Examples per seed (the fewest, if seeds differ); null for what is no score."""
    kind: SpreadKind
    """Where the interval comes from. ``wilson``: one seed, a share of ``n``; ``examples``: one seed, bootstrap;
    ``examples and seeds``: bootstrap of both; ``counts and seeds``: Student's t, where the examples of single examples
    are not known; ``seeds``: Student's t over the seeds alone; ``none``: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One group's metric minus another's, in the metric's unit."""

    mean: float
    low: float
    """Bounds of the interval at 95 %. Where it and the test disagree, at the very border, the test counts."""
    high: float
    p: float
    """Of a difference so large, in either direction, between groups that do not differ; no correction for more than one
    comparison."""
    kind: DifferenceKind
    """``mcnemar``: exact, right or wrong on the same examples, one seed each; ``paired``: bootstrap over the same
    examples, and over the seeds where there are several; ``unpaired``: examples that differ or are not known;
    ``seeds``: over the seeds alone (Welch's t test)."""

    @property
    def distinct(self) -> bool:
        """Whether the groups can be told apart, if this is the only comparison made."""
        return self.p < ALPHA


@remembered
def interval(group: Row, metric: Metric, examples: ExampleScores) -> Interval | None:
    """Mean, deviation and interval of a group; null if it was not measured."""
    found = _evidence(group, metric, examples)
    if found is None:
        return None
    low, high, kind = _interval(found)
    if found.bounds and low is not None and high is not None:
        low, high = max(low, found.bounds[0]), min(high, found.bounds[1])
    std = statistics.stdev(found.values) if len(found.values) > 1 else None
    return Interval(mean=found.mean, std=std, seeds=len(found.values), low=low, high=high, n=found.n, kind=kind)


def difference(a: Row, b: Row, metric: Metric, examples: ExampleScores) -> Difference | None:
    """``a`` minus ``b`` with interval and test; null if either was not measured, or nothing is known of the noise."""
    ours, theirs = _evidence(a, metric, examples), _evidence(b, metric, examples)
    if ours is None or theirs is None:
        return None
    if ours.matrix is not None and theirs.matrix is not None and ours.ids == theirs.ids:
        if ours.right_or_wrong and theirs.right_or_wrong:
            return _mcnemar(ours, theirs)
        if len(ours.ids) > 1:
            return _paired(ours, theirs, ours.matrix, theirs.matrix)
    return _unpaired(ours, theirs)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Evidence:
    """What is known of a group; variances and values in the metric's unit."""

    values: list[float]
    """One per seed."""
    seeds: list[int]
    cells: list[str]
    scores: list[Score]
    """One per seed; empty for what is no score."""
    factor: float
    """From an outcome to the unit; 0 for what is no score."""
    bounds: tuple[float, float] | None
    """What the score can be; null for what is none, and where it is not known."""
    ids: tuple[str, ...]
    matrix: Array | None
    """(seeds, examples), examples; null if not known, or if the seeds were scored on different examples."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def n(self) -> int | None:
        return min((score.n for score in self.scores), default=None)

    @property
    def share(self) -> bool:
        return bool(self.scores) and all(score.correct is not None and score.n for score in self.scores)

    @property
    def right_or_wrong(self) -> bool:
        """One seed, examples of 0 and 1."""
        return len(self.values) == 1 and self.share and self.matrix is not None

    @property
    def raw(self) -> float:
        """Mean over the seeds, without the unit."""
        return statistics.fmean(score.value or 0.0 for score in self.scores)

    @property
    def of_seeds(self) -> _Part | None:
        """Null with one seed."""
        several = len(self.values) > 1
        return _Part(statistics.variance(self.values) / len(self.values), len(self.values) - 1) if several else None

    @property
    def of_examples(self) -> _Part | None:
        """As the test set might have been another; null if it cannot be told."""
        if self.share and self.n is not None:
            return _Part(self.factor**2 * self.shrunk * (1 - self.shrunk) / (self.n + 2), math.inf)
        if self.matrix is not None and len(self.ids) > 1:
            return _variance_of_mean(self.factor * self.matrix.mean(axis=0))
        return None

    @property
    def shrunk(self) -> float:
        """A share with one more right and one more wrong, after Agresti and Caffo (2000): without them a share of 0 or
        1 would look certain."""
        return (self.raw * self.n + 1) / (self.n + 2) if self.n is not None else self.raw


@dataclass(frozen=True, slots=True)
class _Part:
    """A share of the variance of a mean, with the degrees of freedom it was estimated with."""

    variance: float
    freedom: float


@remembered
def _evidence(group: Row, metric: Metric, examples: ExampleScores) -> _Evidence | None:
    records = [record for record in group.ok if metric.value(record) is not None]
    if not records:
        return None
    name = metrics.underlying_score(records[0], metric.name)
    facts = metrics.task_scores()[name] if name else None
    scores = [score for record in records if name and (score := record.score(name)) is not None]
    samples = [sample for record in records if (sample := examples.sample(record, metric.name)) is not None]
    same = len(samples) == len(records) and all(sample.ids is samples[0].ids for sample in samples)
    return _Evidence(
        values=[value for record in records if (value := metric.value(record)) is not None],
        seeds=[record.seed for record in records],
        cells=[record.cell_id for record in records],
        scores=scores if len(scores) == len(records) else [],
        factor=facts.factor if facts else 0.0,
        bounds=(facts.factor * facts.lowest, facts.factor) if facts and name == metric.name else None,
        ids=samples[0].ids if same else (),
        matrix=_stacked([sample.values for sample in samples]) if same else None,
    )


def _stacked(rows: Sequence[Array]) -> Array:
    import numpy as np

    return np.stack(rows)


def _interval(found: _Evidence) -> tuple[float | None, float | None, SpreadKind]:
    several = len(found.values) > 1
    if found.share and found.n and (not several or found.raw in (0, 1)):
        # Of one seed; or of several that agree on every example, of which a bootstrap would know no spread.
        base, (low, high) = found.mean - found.factor * found.raw, wilson(found.raw, found.n)
        return base + found.factor * low, base + found.factor * high, "examples and seeds" if several else "wilson"
    if found.matrix is not None and len(found.ids) > 1 and (several or _varied(found.matrix)):
        low, high, _ = _bootstrapped(found.factor * found.matrix.mean(axis=0), [found.values], found.ids, found.cells)
        return found.mean + low, found.mean + high, "examples and seeds" if several else "examples"
    if found.of_seeds is None:
        return None, None, "none"
    half = _half_width(parts := [part for part in (found.of_examples, found.of_seeds) if part is not None])
    return found.mean - half, found.mean + half, "counts and seeds" if len(parts) > 1 else "seeds"


def _varied(matrix: Array) -> bool:
    """Whether examples differ; where they do not, resampling them would look like certainty."""
    return float(matrix.max() - matrix.min()) > 1e-12


def wilson(share: float, n: int) -> tuple[float, float]:
    """Score interval of a share of ``n``, as ``scipy.stats.binomtest(...).proportion_ci(method="wilson")``."""
    scale, centre = 1 + Z**2 / n, share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _mcnemar(ours: _Evidence, theirs: _Evidence) -> Difference:
    assert ours.matrix is not None
    assert theirs.matrix is not None
    apart = ours.matrix[0] - theirs.matrix[0]
    more, fewer, n = int((apart > 0).sum()), int((apart < 0).sum()), len(apart)
    # Bonett and Price: one more example of each kind, so that few differing examples do not look like certainty.
    up, down = (more + 1) / (n + 2), (fewer + 1) / (n + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    mean, shift = ours.mean - theirs.mean, ours.factor * (up - down)
    low, high = (max(-ours.factor, shift - ours.factor * half), min(ours.factor, shift + ours.factor * half))
    return Difference(mean=mean, low=low, high=high, p=mcnemar(more, fewer), kind="mcnemar")


def mcnemar(more: int, fewer: int) -> float:
    """Two-sided p of McNemar's exact test: ``more`` examples that only one answers, ``fewer`` that only the other does.

    As ``scipy.stats.binomtest(more, more + fewer)``, whose module takes a second to import.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(more, fewer), more + fewer, 0.5))) if more != fewer else 1.0


def _paired(ours: _Evidence, theirs: _Evidence, a: Array, b: Array) -> Difference:
    """Over examples as pairs; over seeds, too, if both groups have the same."""
    apart = ours.factor * (a.mean(axis=0) - b.mean(axis=0))
    mean = ours.mean - theirs.mean
    if sorted(ours.seeds) == sorted(theirs.seeds):
        other = dict(zip(theirs.seeds, theirs.values, strict=True))
        by_seed = [[value - other[seed] for seed, value in zip(ours.seeds, ours.values, strict=True)]]
    else:
        by_seed = [ours.values, theirs.values]
    low, high, parts = _bootstrapped(apart, by_seed, ours.ids, [*ours.cells, *theirs.cells])
    differing = int((abs(apart) > 1e-12).sum())
    p = max(_two_sided(mean, parts), 0.5 ** (differing - 1)) if differing else 1.0  # what flipping signs can reach
    return Difference(mean=mean, low=mean + low, high=mean + high, p=p, kind="paired")


def _unpaired(ours: _Evidence, theirs: _Evidence) -> Difference | None:
    """Over the examples of each, if known, and the seeds of each; one seed is taken to vary as the other group's do."""
    examples = [part for part in (ours.of_examples, theirs.of_examples) if part is not None]
    parts = list(examples) if len(examples) == 2 else []
    seeds = [part for part in (ours.of_seeds, theirs.of_seeds) if part is not None]
    if len(seeds) == 1:
        several = max(len(ours.values), len(theirs.values))
        seeds.append(_Part(seeds[0].variance * several, seeds[0].freedom))
    if not parts and not seeds:
        return None
    mean, half = ours.mean - theirs.mean, _half_width([*parts, *seeds])
    centre = mean
    if parts and ours.share and theirs.share:
        centre += ours.factor * (ours.shrunk - ours.raw - theirs.shrunk + theirs.raw)
    p = _two_sided(centre, [*parts, *seeds])
    return Difference(mean=mean, low=centre - half, high=centre + half, p=p, kind="unpaired" if parts else "seeds")


# --- bootstrap -------------------------------------------------------------------------------------------------


def _bootstrapped(
    of_examples: Array, by_seed: Sequence[Sequence[float]], ids: tuple[str, ...], cells: Sequence[str]
) -> tuple[float, float, list[_Part]]:
    """Bounds of the deviation of a mean at 95 %, and the parts of its variance.

    ``of_examples``: (examples,), over the seeds; ``by_seed``: values of independent sets of seeds, resampled each; of a
    set of one the noise is that of the largest.
    """
    import numpy as np

    pool = max(by_seed, key=len)
    drawn = _over_examples(of_examples, ids)
    parts = [_variance_of_mean(of_examples)]
    random = np.random.default_rng(_seed(sorted(cells)))
    for values in by_seed if len(pool) > 1 else ():
        known = np.array(values if len(values) > 1 else pool, dtype=np.float64)
        picks = random.integers(0, len(known), (RESAMPLES, len(values)))
        unbiased = math.sqrt(len(known) / (len(known) - 1))
        drawn = drawn + unbiased * (known - known.mean())[picks].mean(axis=1)
        parts.append(_Part(float(known.var(ddof=1)) / len(values), len(known) - 1))
    wider = _quantile(parts) / Z
    low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
    return wider * float(low), wider * float(high), parts


def _over_examples(values: Array, ids: tuple[str, ...]) -> Array:
    """(resamples,): how far the mean of resampled examples is from that of all."""
    import numpy as np

    n = len(values)
    if n > FINITE:
        error = math.sqrt(_variance_of_mean(values).variance)
        return np.random.default_rng(_seed(ids)).normal(0.0, error, RESAMPLES)
    deviations: Array = _counts(ids) @ (values - values.mean()) / n
    return deviations


@lru_cache(maxsize=6)
def _counts(ids: tuple[str, ...]) -> Array:
    """(resamples, examples): how often each example is drawn; the same for all cells that share the examples."""
    import numpy as np

    n = len(ids)
    random = np.random.default_rng(_seed(ids))
    return np.stack([np.bincount(random.integers(0, n, n), minlength=n) for _ in range(RESAMPLES)]).astype(np.float32)


def _seed(names: Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\n".join(names).encode("utf-8", "replace"), digest_size=8).digest())


# --- variances -------------------------------------------------------------------------------------------------


def _variance_of_mean(values: Array) -> _Part:
    return _Part(float(values.var(ddof=1)) / len(values), len(values) - 1)


def _error(parts: Sequence[_Part]) -> float:
    return math.sqrt(sum(part.variance for part in parts))


def _freedom(parts: Sequence[_Part]) -> float:
    """Welch and Satterthwaite's."""
    below = sum(part.variance**2 / part.freedom for part in parts)
    return sum(part.variance for part in parts) ** 2 / below if below else math.inf


def _quantile(parts: Sequence[_Part]) -> float:
    """Student's t at 97.5 %."""
    freedom = _freedom(parts)
    if freedom > 1e9:
        return Z
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - ALPHA / 2))


def _half_width(parts: Sequence[_Part]) -> float:
    return _quantile(parts) * _error(parts)


def _two_sided(mean: float, parts: Sequence[_Part]) -> float:
    error, freedom = _error(parts), _freedom(parts)
    if abs(mean) < 1e-9 or not error:
        return 1.0 if abs(mean) < 1e-9 else 0.0
    if freedom > 1e9:
        return 2 * statistics.NormalDist().cdf(-abs(mean) / error)
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -abs(mean) / error))

"""Intervals cover the truth as often as they say, tests agree with SciPy's, and no noise is taken for a difference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bench import metrics
from bench.analysis.predictions import ExampleScores
from bench.analysis.rows import Row, rows_of
from bench.analysis.statistics import Difference, Interval, bootstrap, difference, holm, interval, mcnemar, wilson
from bench.records.record import Time
from bench.spec.cell import Cell
from bench.spec.sections import Spec
from bench.tasks import _base
from tests.analysis.conftest import near
from tests.factories import load_cells, make_record
from tests.report.answers import answered
from tests.report.conftest import Case

GLOBAL = metrics.get("global")
STEP = metrics.get("step_time")
Influence = Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]
Answers = Sequence[bool]


class Lab:
    """Rows made of what their seeds answered."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self._root = folder, root

    def rows(self, *rows: Sequence[Answers], predictions: bool = True) -> list[Row]:
        """Each a list of seeds, each a list of questions."""
        n = max(len(seeds) for seeds in rows)
        spec, cells = _cells(self._root, n)
        case = Case(spec, cells)
        for i, seeds in enumerate(rows):
            for j, right in enumerate(seeds):
                record = answered(self.folder, cells[i * n + j], right)
                case.put(i * n + j, record if predictions else record.model_copy(update={"predictions": None}))
        return rows_of(spec, cells, case.records)[: len(rows)]

    def difference(self, a: Sequence[Answers], b: Sequence[Answers], *, predictions: bool = True) -> Difference:
        one, other = self.rows(a, b, predictions=predictions)
        found = difference(one, other, GLOBAL, ExampleScores(self.folder))
        assert found is not None
        return found

    def interval(self, *seeds: Answers) -> Interval:
        (row,) = self.rows(seeds)
        found = interval(row, GLOBAL, ExampleScores(self.folder))
        assert found is not None
        return found


@cache
def _cells(root: Path, seeds: int) -> tuple[Spec, list[Cell]]:
    return load_cells(root / "specs" / "table1.yaml", "demo", seeds=range(seeds))


@pytest.fixture
def lab(root: Path, tmp_path: Path) -> Lab:
    return Lab(root, tmp_path)


def draw(seed: int, n: int, share: float) -> list[bool]:
    return [bool(hit) for hit in np.random.default_rng(seed).random(n) < share]


# --- SciPy's results -------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(more: int, fewer: int) -> None:
    wanted = stats.binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    assert mcnemar(more, fewer) == pytest.approx(wanted, rel=1e-9)


def test_mcnemar_of_a_textbook() -> None:
    """The table ``[[101, 121], [59, 33]]`` that statsmodels tests against R's ``mcnemar.test``, exact."""
    assert mcnemar(121, 59) == pytest.approx(4.434449e-06, rel=1e-5)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_s_interval_is_scipy_s(correct: int, n: int) -> None:
    correct = min(correct, n)
    wanted = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert wilson(correct / n, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_costs_are_compared_by_welch_s_test(root: Path, seed: int) -> None:
    times = np.random.default_rng(seed).normal([[0.10], [0.13]], [[0.02], [0.01]], (2, 3))
    spec, cells = _cells(root, 3)
    records = {
        cell.cell_id: make_record(cell, time=Time(step_median_s=s)) for cell, s in zip(cells, times.flat, strict=False)
    }
    rows, none = rows_of(spec, cells, records), ExampleScores(None)
    found, one = difference(rows[1], rows[0], STEP, none), interval(rows[0], STEP, none)
    wanted = stats.ttest_ind(times[1], times[0], equal_var=False)
    assert found is not None
    assert one is not None
    assert (found.kind, found.p) == ("seeds", near(wanted.pvalue))
    assert (found.low, found.high) == pytest.approx([1000 * bound for bound in wanted.confidence_interval()])
    inner = stats.t.interval(0.95, 2, np.mean(times[0]), stats.sem(times[0]))
    assert (one.kind, one.n, one.low, one.high) == ("seeds", None, *(pytest.approx(1000 * bound) for bound in inner))


@pytest.mark.parametrize(
    ("p_values", "tests", "adjusted"),
    [
        ([0.04, 0.01, 0.02], 3, [0.04, 0.03, 0.04]),
        ([0.06, 0.01, 0.03], None, [0.06, 0.03, 0.06]),
        ([0.001, 0.04, 0.03], 3, [0.003, 0.06, 0.06]),
        ([0.04, 0.01, 0.02], 6, [0.16, 0.06, 0.10]),
        ([0.9, 0.5], None, [1.0, 1.0]),
        ([], 1, []),
    ],
)
def test_holm_corrects_step_by_step(p_values: list[float], tests: int | None, adjusted: list[float]) -> None:
    assert holm(p_values, tests) == pytest.approx(adjusted)


# --- simulated data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "of_examples", "of_seeds", "of_both"),
    [(1, 30, 0, 20), (2, 30, 2, 20), (3, 30, 2, 20), (3, 5, 5, 5), (5, 30, 3, 20), (10, 5, 5, 5)],
)
def test_the_bootstrap_covers_the_truth(seeds: int, of_examples: float, of_seeds: float, of_both: float) -> None:
    """Scores with noise of the examples, the seeds, and both together: 95 % of 400 intervals, give or take 3 points."""
    rng, n, trials, covered = np.random.default_rng(0), 200, 400, 0
    ids = tuple(map(str, range(n)))
    for trial in range(trials):
        scores = (
            rng.normal(0, of_examples, n) + rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_both, (seeds, n))
        )
        low, high, _ = bootstrap(scores.mean(axis=0), [scores.mean(axis=1).tolist()], ids, [str(trial)])
        covered += scores.mean() + low <= 0 <= scores.mean() + high
    assert 0.92 <= covered / trials <= 0.98


@pytest.mark.parametrize("influence", [_base.f1_influence, _base.mcc_influence])
def test_scores_that_are_no_means_are_covered_as_well(influence: Influence) -> None:
    """Three classes, one of them rare, 300 examples of a known population: 95 % of 400 intervals, give or take 3."""
    rng, n, trials, covered = np.random.default_rng(1), 300, 400, 0
    shares = np.array([[0.50, 0.06, 0.02], [0.08, 0.20, 0.02], [0.03, 0.02, 0.07]])  # [answer, prediction]
    pairs = list(itertools.product("abc", "abc"))
    many = [pair for pair, share in zip(pairs, shares.ravel(), strict=True) for _ in range(round(100 * share))]
    truth = float(influence([a for a, _ in many], [p for _, p in many]).mean())
    ids = tuple(map(str, range(n)))
    for trial in range(trials):
        drawn = [pairs[i] for i in rng.choice(9, n, p=shares.ravel())]
        values = influence([a for a, _ in drawn], [p for _, p in drawn])
        low, high, _ = bootstrap(values, [[float(values.mean())]], ids, [str(trial)])
        covered += values.mean() + low <= truth <= values.mean() + high
    assert 0.92 <= covered / trials <= 0.98


def test_cells_of_equal_skill_differ_no_more_often_than_stated(lab: Lab) -> None:
    """Of 100 pairs of three seeds each, which find the same questions hard."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        hard = rng.random(120)
        a, b = ([(rng.random(120) < hard).tolist() for _ in range(3)] for _ in range(2))
        wrong += lab.difference(a, b).significant
    assert wrong <= 9


def test_pairing_finds_what_two_samples_hide(lab: Lab) -> None:
    right = draw(0, 400, 0.5)
    better = [hit or i < 40 for i, hit in enumerate(right)]
    assert lab.difference([better], [right]).significant
    assert not lab.difference([better], [right], predictions=False).significant


def test_more_examples_narrow_the_interval_as_their_root(lab: Lab) -> None:
    few, many = (lab.interval(draw(0, n, 0.5)) for n in (100, 10_000))
    assert None not in (few.low, few.high, many.low, many.high)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.05)  # type: ignore[operator]


def test_many_examples_are_drawn_from_the_normal_distribution() -> None:
    values = np.random.default_rng(0).random(6000)
    low, high, _ = bootstrap(values, [[0.5]], tuple(map(str, range(6000))), ["a"])
    assert (low, high) == pytest.approx(np.array([-1.96, 1.96]) * values.std() / np.sqrt(6000), rel=0.06)


# --- borders ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1), st.booleans())
def test_identical_cells_are_never_different(
    tmp_path_factory: pytest.TempPathFactory, root: Path, seeds: int, n: int, seed: int, predictions: bool
) -> None:
    right = [draw(seed + i, n, 0.5) for i in range(seeds)]
    found = Lab(root, tmp_path_factory.mktemp("same")).difference(right, right, predictions=predictions)
    assert (found.mean, found.p) == (0.0, 1.0)
    assert found.low <= 0 <= found.high


@pytest.mark.parametrize("seeds", [1, 3])
def test_few_questions_are_never_significant(lab: Lab, seeds: int) -> None:
    for predictions in (True, False):
        found = lab.difference([[True]] * seeds, [[False]] * seeds, predictions=predictions)
        assert (found.mean, found.significant) == (100.0, False)
        assert found.low <= 0
    assert not lab.difference([[True] * 4] * seeds, [[False] * 4] * seeds).significant
    assert lab.difference([[True] * 12] * seeds, [[False] * 12] * seeds).significant


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_perfect_score_is_not_a_certain_one(lab: Lab, seeds: int) -> None:
    found = lab.interval(*[[True] * 20] * seeds)
    assert found.high == 100.0
    assert found.low == pytest.approx(100 * stats.binomtest(20, 20).proportion_ci(method="wilson").low)


def test_one_measurement_leaves_its_noise_unknown(paper: Case) -> None:
    rows, none = rows_of(paper.spec, paper.cells, paper.fill().records), ExampleScores(None)
    found = interval(rows[0], STEP, none)
    assert found is not None
    assert (found.std, found.low, found.high, found.kind) == (None, None, None, "none")
    assert difference(rows[0], rows[1], STEP, none) is None


def test_no_questions_no_score(lab: Lab) -> None:
    (row,), examples = lab.rows([[]]), ExampleScores(lab.folder)
    assert interval(row, GLOBAL, examples) is None
    assert difference(row, row, GLOBAL, examples) is None


def test_questions_that_differ_are_not_paired(lab: Lab) -> None:
    assert lab.difference([draw(0, 100, 0.5)], [draw(0, 101, 0.5)]).kind == "unpaired"
    found = lab.interval(draw(0, 100, 0.5), draw(1, 120, 0.5), draw(2, 110, 0.5))
    assert (found.kind, found.n) == ("counts and seeds", 100)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high


def test_a_cell_of_one_seed_beside_one_of_three(lab: Lab) -> None:
    """It is taken to have the other's noise of seeds."""
    three = [draw(i, 300, 0.4 + 0.1 * i) for i in range(3)]
    alone, all_three = lab.difference(three, [draw(7, 300, 0.3)]), lab.difference(three, three)
    assert alone.kind == "paired"
    assert alone.high - alone.low > all_three.high - all_three.low
    assert not alone.significant


def test_intervals_stay_within_what_a_score_can_be_and_repeat(lab: Lab) -> None:
    seeds = [[i != j for i in range(40)] for j in range(2)]
    assert lab.interval(*seeds).high == 100.0
    assert lab.interval(*seeds) == lab.interval(*seeds)

"""Classes: which there are, the loss, and scores against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import f1_score, matthews_corrcoef

from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.tasks import text_classification
from bench.tasks._base import f1_influence, mcc_influence


def examples(*answers: str) -> list[Example]:
    return [Example(question_id=str(i), questions=("x",), answer=answer) for i, answer in enumerate(answers)]


def task(train: list[Example], **settings: Any) -> Any:
    return text_classification.create(text_classification.Settings(name="text_classification", **settings), None, train)


class Fixed:
    """A model whose logits are given."""

    def __init__(self, logits: list[list[float]]) -> None:
        self._logits = torch.tensor(logits)

    def logits(self, _batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._logits


@pytest.mark.parametrize(
    ("train", "settings", "labels", "labels_from"),
    [
        (("cat", "dog", "cat", "ant"), {}, ("ant", "cat", "dog"), "data"),
        (("cat", "dog"), {"labels": ["dog", "cat", "ant"]}, ("dog", "cat", "ant"), "spec"),
        ((), {}, ("0", "1"), "assumed"),
        ((), {"num_labels": 3}, ("0", "1", "2"), "spec"),
    ],
)
def test_labels_are_the_data_s_the_spec_s_or_assumed(train: Any, settings: Any, labels: Any, labels_from: str) -> None:
    facts = task(examples(*train), **settings).facts
    assert (facts.labels, facts.labels_from) == (labels, labels_from)


def test_a_number_of_labels_that_the_data_contradict_is_refused() -> None:
    with pytest.raises(DataError, match="num_labels is 3, but the training data have 2"):
        task(examples("a", "b"), num_labels=3)
    with pytest.raises(DataError, match="all training examples are of the class 'a'"):
        task(examples("a", "a"))


@pytest.mark.parametrize(
    "wrong", [{"labels": ["a", "a"]}, {"labels": ["a"]}, {"labels": ["a", "b"], "num_labels": 3}, {"num_labels": 1}]
)
def test_settings_that_contradict_themselves_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        text_classification.Settings(name="text_classification", **wrong)


def test_an_answer_that_is_no_label_is_named_with_the_nearest() -> None:
    two = task(examples("cat", "dog"))
    with pytest.raises(DataError, match=r"'dgo' is no label of the task; did you mean 'dog'\?"):
        two.check(examples("dgo")[0])
    with pytest.raises(DataError, match="'bird' is no label"):
        two.targets(["bird"])


def test_the_loss_is_cross_entropy_and_smoothing_moves_it() -> None:
    batch = task(examples("a", "b")).targets(["a", "b"])
    model = Fixed([[2.0, 0.0], [0.0, 0.0]])
    plain = float(task(examples("a", "b")).loss(model, batch))
    assert plain == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2)
    assert float(task(examples("a", "b"), label_smoothing=0.5).loss(model, batch)) > plain


def test_scores_by_hand() -> None:
    """Confusion (gold, given): aa aa ab bb ba cc -> F1 of a 4/6, b 1/2, c 1."""
    gold, given = examples("a", "a", "a", "b", "b", "c"), ["a", "a", "b", "b", "a", "c"]
    scores = task(gold).score(gold, given)
    assert (scores["accuracy"].correct, scores["accuracy"].n) == (4, 6)
    assert scores["macro_f1"].value == pytest.approx((4 / 6 + 1 / 2 + 1) / 3)
    # (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2)), Gorodkin 2004
    assert scores["mcc"].value == pytest.approx((4 * 6 - (3 * 3 + 2 * 2 + 1)) / (36 - 14))
    assert {score.n for score in scores.values()} == {6}
    assert scores["macro_f1"].correct is None


def test_every_class_counts_the_same_in_macro_f1_but_one_that_is_nowhere() -> None:
    gold = examples("a", "a", "a", "b")
    assert task(examples("a", "b", "c")).score(gold, ["a"] * 4)["macro_f1"].value == pytest.approx((6 / 7 + 0) / 2)


def test_majority_ties_go_to_the_first_in_the_alphabet() -> None:
    found = task(examples("b", "a")).baselines(examples("b", "a"), examples("a", "a", "b"))
    assert found["majority"]["accuracy"].correct == 2


def scored(gold: list[str], told: list[str], weights: list[float]) -> tuple[float, float]:
    """Macro F1 and MCC of weighted examples, by scikit-learn."""
    f1 = f1_score(gold, told, average="macro", sample_weight=weights, zero_division=0)
    return float(f1), float(matthews_corrcoef(gold, told, sample_weight=weights))


@pytest.mark.parametrize("seed", range(5))
def test_the_influence_is_the_derivative_by_the_weight_of_an_example(seed: int) -> None:
    """Against scikit-learn's own scores of weighted examples, one weight moved a little at a time."""
    random = np.random.default_rng(seed)
    gold = [str(c) for c in random.integers(0, 4, 40)]
    told = [g if random.random() < 0.6 else str(random.integers(0, 5)) for g in gold]
    values = scored(gold, told, [1.0] * 40)
    for value, influence in zip(values, (f1_influence, mcc_influence), strict=True):
        found = influence(gold, told)
        assert found.mean() == pytest.approx(value)
        step = 1e-5
        for i in range(40):
            moved = scored(gold, told, [1 + step * (i == j) for j in range(40)])[values.index(value)]
            assert found[i] == pytest.approx(value + 40 * (moved - value) / step, abs=2e-3)


def test_one_class_has_a_correlation_of_zero_and_no_influence() -> None:
    assert mcc_influence(["a", "a"], ["a", "b"]).tolist() == [0.0, 0.0]
    assert f1_influence(["a", "a"], ["a", "a"]).tolist() == [1.0, 1.0]

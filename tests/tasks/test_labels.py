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
from bench.plugins.contracts import Example, GenerateOptions
from bench.tasks import _labels, image_classification, text_classification

OPTIONS = GenerateOptions(num_beams=1, max_new_tokens=1)


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


def test_labels_are_the_training_answers_in_order() -> None:
    facts = task(examples("cat", "dog", "cat", "ant")).facts
    assert (facts.labels, facts.labels_from) == (("ant", "cat", "dog"), "data")


def test_labels_of_the_spec_keep_their_order() -> None:
    facts = task(examples("cat", "dog"), labels=["dog", "cat", "ant"]).facts
    assert (facts.labels, facts.labels_from) == (("dog", "cat", "ant"), "spec")


def test_without_data_the_number_is_the_spec_s_or_assumed() -> None:
    assert (len(task([]).facts.labels), task([]).facts.labels_from) == (2, "assumed")
    assert (len(task([], num_labels=7).facts.labels), task([], num_labels=7).facts.labels_from) == (7, "spec")


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


def test_the_prediction_is_the_class_of_the_largest_logit() -> None:
    assert task(examples("a", "b", "c")).predict(Fixed([[0, 3, 1], [5, 3, 1]]), {}, OPTIONS) == ["b", "a"]


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


def test_all_right_and_all_wrong() -> None:
    gold = examples("a", "b")
    right, wrong = task(gold).score(gold, ["a", "b"]), task(gold).score(gold, ["b", "a"])
    assert [s.value for s in right.values()] == [1, 1, 1]
    assert [s.value for s in wrong.values()] == [0, 0, -1]


def test_a_prediction_too_few_is_no_score() -> None:
    with pytest.raises(ValueError, match="1 predictions for 2 examples"):
        task(examples("a", "b")).score(examples("a", "b"), ["a"])


def test_majority_ties_go_to_the_first_in_the_alphabet() -> None:
    found = task(examples("b", "a")).baselines(examples("b", "a"), examples("a", "a", "b"))
    assert found["majority"]["accuracy"].correct == 2
    assert set(found) == set(text_classification.BASELINES)


def test_images_are_not_scored_by_correlation() -> None:
    images = image_classification.create(
        image_classification.Settings(name="image_classification"), None, examples("a", "b")
    )
    assert list(images.score(examples("a", "b"), ["a", "a"])) == list(image_classification.METRICS)
    assert images.facts.inputs == ("image",)


# --- influence -------------------------------------------------------------------------------------------------


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
    for value, influence in zip(values, (_labels.f1_influence, _labels.mcc_influence), strict=True):
        found = influence(gold, told)
        assert found.mean() == pytest.approx(value)
        step = 1e-5
        for i in range(40):
            moved = scored(gold, told, [1 + step * (i == j) for j in range(40)])[values.index(value)]
            assert found[i] == pytest.approx(value + 40 * (moved - value) / step, abs=2e-3)


def test_one_class_has_a_correlation_of_zero_and_no_influence() -> None:
    assert _labels.mcc_influence(["a", "a"], ["a", "b"]).tolist() == [0.0, 0.0]
    assert _labels.f1_influence(["a", "a"], ["a", "a"]).tolist() == [1.0, 1.0]

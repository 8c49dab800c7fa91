"""Exact match, open and closed, and what language alone scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.datasets import easy_vqa, slake, vqa_rad
from bench.errors import DataError
from bench.plugins.contracts import AnswerType, Example
from bench.records.scores import Score
from bench.tasks import _vqa_scoring as scoring
from bench.tasks._normalise import vqa as normalise


def example(answer: str, question: str = "q?", kind: AnswerType | None = None) -> Example:
    return Example(
        question_id=f"{question}-{answer}", image="i", questions=(question,), answer=answer, answer_type=kind
    )


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("X-Ray", "x - ray"),
        ("Left Lung, Right", "left lung , right"),
        (" Heart \tlungs ", "heart lungs"),
        ("3.5 cm", "3 . 5 cm"),
        ("5%", "5 %"),
        ("etc...", "etc"),
        ("'s", "' s"),
        ("a_b", "a _ b"),
        ("左肺", "左 肺"),
        ("CT图像,正常", "ct 图 像 , 正 常"),
        ("café", "cafe\u0301"),
    ],
)
def test_equal_after_normalisation(gold: str, prediction: str) -> None:
    assert scoring.is_correct(example(gold), prediction)


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("yes", "no"),
        ("normal", "no"),
        ("3.5", "35"),
        ("lung", "lungs"),
        ("mri", ""),
        ("a b", "ab"),
        (".", ""),
        ("की है", "कीहै"),
    ],
)
def test_different_after_normalisation(gold: str, prediction: str) -> None:
    assert not scoring.is_correct(example(gold), prediction)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_closed_rules_differ() -> None:
    left_or_right = example("left", kind="closed")
    assert scoring.is_closed(left_or_right, "answer_type")
    assert not scoring.is_closed(left_or_right, "yes_no")
    assert scoring.is_closed(example("Yes ", kind="open"), "yes_no")
    with pytest.raises(DataError, match=r"set `evaluate\.closed: yes_no`"):
        scoring.is_closed(example("yes"), "answer_type")


def test_score_has_numerators_and_denominators() -> None:
    gold = [example("yes"), example("no"), example("no"), example("CT"), example("lung")]
    accuracy = scoring.score(gold, ["Yes.", "yes", "no", "ct", "heart"], "yes_no")
    assert (accuracy["closed"].correct, accuracy["closed"].n) == (2, 3)
    assert (accuracy["open"].correct, accuracy["open"].n) == (1, 2)
    assert (accuracy["global"].correct, accuracy["global"].n) == (3, 5)


def test_a_prediction_too_few_is_no_score() -> None:
    with pytest.raises(ValueError, match="shorter"):
        scoring.score([example("yes"), example("no")], ["yes"], "yes_no")


def test_question_only_majority() -> None:
    train = [
        example("CT", "modality?"),
        example("ct.", "Modality? "),
        example("MRI", "modality?"),
        example("yes", "healthy?"),
        example("no", "healthy?"),
        example("yes", "red?"),
    ]
    majority = scoring.Majority(train, "yes_no")
    assert majority.answer(example("?", "modality?")) == "ct"
    assert majority.answer(example("?", "healthy?")) == "no", "equally common: the later one"
    assert majority.answer(example("no", "never seen, closed?")) == "yes"
    assert majority.answer(example("lung", "never seen, open?")) == "ct"
    assert scoring.Majority([], "yes_no").answer(example("lung")) == ""


def percent(baseline: dict[str, Score]) -> tuple[float, ...]:
    return tuple(round(100 * (baseline[name].value or 0), 2) for name in ("open", "closed", "global"))


def test_baselines_on_the_embedded_data() -> None:
    data = easy_vqa.load(easy_vqa.Settings(name="easy_vqa"))
    found = scoring.baselines(data.split("train"), data.split("test"), "answer_type")
    assert percent(found["question_only"]) == (23.06, 82.54, 66.94)
    assert percent(found["always_yes"]) == (0.0, 50.6, 37.33)
    assert percent(found["always_no"]) == (0.0, 49.4, 36.44)


def test_baselines_on_slake_as_published(shared_data: Path) -> None:
    data = slake.load(slake.Settings(name="slake", root=shared_data / "slake", verify="off"))
    found = scoring.baselines(data.split("train"), data.split("test"), "yes_no")
    assert percent(found["question_only"]) == (45.75, 70.99, 54.19)
    assert found["always_no"]["closed"].correct == 180
    assert percent(found["always_no"])[1] == 50.70, "what ten rows of Tables 1-4 print"


def test_baselines_on_vqa_rad(shared_data: Path) -> None:
    data = vqa_rad.load(vqa_rad.Settings(name="vqa_rad", root=shared_data / "vqa_rad"))
    found = scoring.baselines(data.split("train"), data.split("test"), "answer_type")
    assert percent(found["always_no"])[1] == 48.90
    assert percent(found["question_only"]) == (6.7, 50.74, 33.26)

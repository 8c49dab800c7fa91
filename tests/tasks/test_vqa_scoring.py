"""Exact match, open and closed, and what language alone scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.errors import DataError
from bench.plugins.contracts import AnswerType, Example
from bench.tasks._normalise import vqa as normalise
from bench.tasks.generative_vqa import ClosedRule, GenerativeVqa


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
    assert GenerativeVqa("yes_no").details(example(gold), prediction)["correct"]


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
    assert not GenerativeVqa("yes_no").details(example(gold), prediction)["correct"]


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


def test_closed_rules_differ() -> None:
    left_or_right = example("left", kind="closed")
    assert GenerativeVqa("answer_type").is_closed(left_or_right)
    assert not GenerativeVqa("yes_no").is_closed(left_or_right)
    assert GenerativeVqa("yes_no").is_closed(example("Yes ", kind="open"))
    with pytest.raises(DataError, match=r"set `evaluate\.closed: yes_no`"):
        GenerativeVqa("answer_type").is_closed(example("yes"))


def test_score_has_numerators_and_denominators() -> None:
    gold = [example("yes"), example("no"), example("no"), example("CT"), example("lung")]
    accuracy = GenerativeVqa("yes_no").score(gold, ["Yes.", "yes", "no", "ct", "heart"])
    assert (accuracy["closed"].correct, accuracy["closed"].n) == (2, 3)
    assert (accuracy["open"].correct, accuracy["open"].n) == (1, 2)
    assert (accuracy["global"].correct, accuracy["global"].n) == (3, 5)


def test_question_only_majority() -> None:
    train = [
        example("CT", "modality?"),
        example("ct.", "Modality? "),
        example("MRI", "modality?"),
        example("yes", "healthy?"),
        example("no", "healthy?"),
        example("yes", "red?"),
    ]
    asked = [
        (example("?", "modality?"), "ct"),
        (example("?", "healthy?"), "no"),  # equally common: the later one
        (example("no", "never seen, closed?"), "yes"),
        (example("lung", "never seen, open?"), "ct"),
    ]
    task = GenerativeVqa("yes_no")
    assert task.answer_from_question(train, [e for e, _ in asked]) == [answer for _, answer in asked]
    assert task.answer_from_question([], [example("lung")]) == [""]


@pytest.mark.parametrize(
    ("name", "rule", "expected"),
    [
        (
            "easy_vqa",
            "answer_type",
            {"question_only": (23.06, 82.54, 66.94), "always_yes": (0, 50.6, 37.33), "always_no": (0, 49.4, 36.44)},
        ),
        # 50.70 is what ten rows of Tables 1-4 of the MILE paper print
        ("slake", "yes_no", {"question_only": (45.75, 70.99, 54.19), "always_no": (0, 50.7, 16.97)}),
        ("vqa_rad", "answer_type", {"question_only": (6.7, 50.74, 33.26), "always_no": (0, 48.9, 29.49)}),
    ],
)
def test_baselines_on_published_data(
    name: str, rule: ClosedRule, expected: dict[str, tuple[float, ...]], request: pytest.FixtureRequest
) -> None:
    plugin = registry.load("datasets", name)
    fields = {} if name == "easy_vqa" else {"root": request.getfixturevalue("shared_data") / name}
    fields |= {"verify": "off"} if name == "slake" else {}
    data = plugin.load(plugin.Settings(name=name, **fields))
    found = GenerativeVqa(rule).baselines(data.split("train"), data.split("test"))
    for baseline, values in expected.items():
        scores = found[baseline]
        percent = tuple(round(100 * (scores[metric].value or 0), 2) for metric in ("open", "closed", "global"))
        assert percent == values

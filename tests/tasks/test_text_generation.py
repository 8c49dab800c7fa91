"""Exact match and token F1, by hand and as SQuAD defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plugins.contracts import Example
from bench.tasks import text_generation
from bench.tasks._normalise import Rule
from bench.tasks.text_generation import TextGeneration


def task(rule: Rule = "squad") -> TextGeneration:
    return text_generation.create(text_generation.Settings(name="text_generation", normalise=rule), None, [])


TASK = task()


def examples(*answers: str) -> list[Example]:
    return [Example(question_id=str(i), questions=("p",), answer=answer) for i, answer in enumerate(answers)]


def match(answer: str, prediction: str, rule: Rule = "squad") -> bool:
    scored = task(rule).score(examples(answer), [prediction])
    return scored["exact_match"].value == 1


def token_f1(answer: str, prediction: str) -> float:
    value = TASK.score(examples(answer), [prediction])["token_f1"].value
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("answer", "prediction", "f1"),
    [
        ("the cat sat", "A cat sat.", 1.0),
        ("a cat sat", "cat", 2 / 3),
        ("red red blue", "red blue blue", 2 / 3),
        ("x", "y", 0.0),
        ("the", "a", 0.0),
        ("word", "", 0.0),
        ("", "", 1.0),
        ("左肺下叶", "左 肺", 2 / 3),
    ],
)
def test_token_f1(answer: str, prediction: str, f1: float) -> None:
    assert token_f1(answer, prediction) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("The  theatre, an anthem!", "theatre anthem"),
        ("(the cat)", "cat"),
        ("U.S.", "us"),
        ("X-ray", "xray"),
        ("1,000", "1000"),
        ("“Paris”", "Paris"),
        ("$5", "5"),
        ("A.", "(a)"),
        ("−5", "-5"),
        ("café", "cafe\u0301"),
        # as a WordPiece tokenizer decodes them
        ("左肺", "左 肺"),
        ("CT图像。", "ct 图 像"),
        ("3.5 mm", "3. 5 mm"),
        ("3.5 mm", "3 . 5 mm"),
        ("-5", "- 5"),
        ("C++", "c + +"),
        ("x+1", "x + 1"),
        ("and/or", "and / or"),
    ],
)
def test_the_same_answer_to_squad(answer: str, prediction: str) -> None:
    assert match(answer, prediction)
    assert match(prediction, answer)


@pytest.mark.parametrize(
    ("answer", "prediction"),
    [
        ("5", "-5"),
        ("35", "3.5"),
        (".5", "5"),
        ("3,5", "35"),
        ("the", "a"),
        ("the", ""),
        ("A", ""),
        ("...", ""),
        ("?", "!"),
        ("C", "C++"),
        ("C#", "C++"),
        ("HER2+", "HER2-"),
        ("HER2-", "HER2"),
        ("10-20", "1020"),
        ("1/2", "12"),
        ("<5", ">5"),
        ("x+1", "x-1"),
        ("hepatitis A", "hepatitis"),
        ("A, C", "C"),
        ("左肺", "右肺"),
        ("a b", "ab"),
    ],
)
def test_another_answer_to_squad(answer: str, prediction: str) -> None:
    assert not match(answer, prediction)
    assert not match(answer, prediction, "vqa")
    assert token_f1(answer, prediction) < 1


def test_the_rule_is_a_setting() -> None:
    assert match("the X-Ray.", "x ray", "vqa") is False
    assert match("X-Ray.", "x - ray", "vqa")
    assert match("左肺", "左 肺", "vqa")
    assert match("X-Ray", "x-ray", "none") is False
    assert match("X-Ray", "X-Ray", "none")


@given(st.text(), st.text())
def test_f1_is_symmetric_and_one_where_texts_match(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1
    assert token_f1(a, b) == 1 or not match(a, b)


@given(st.text())
def test_only_nothing_is_the_same_as_nothing(text: str) -> None:
    for rule in ("squad", "vqa"):
        assert match(text, "", rule) == (not text.split())


def test_scores_and_details() -> None:
    gold, given = examples("a cat sat", "dog"), ["cat", "Dog."]
    scores = TASK.score(gold, given)
    assert (scores["exact_match"].correct, scores["exact_match"].n) == (1, 2)
    assert scores["token_f1"].value == pytest.approx((2 / 3 + 1) / 2)
    assert [TASK.details(e, g)["correct"] for e, g in zip(gold, given, strict=True)] == [False, True]
    assert TASK.score([], [])["token_f1"].value is None


def test_the_majority_answers_every_prompt_alike() -> None:
    found = TASK.baselines(examples("x", "y", "x"), examples("x", "z"))
    assert found["majority"]["exact_match"].correct == 1

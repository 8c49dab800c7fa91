"""Exact match and token F1, by hand and as SQuAD defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.protocols import Example
from bench.tasks import text_generation
from bench.tasks.text_generation import token_f1, tokens

TASK = text_generation.create(text_generation.Settings(name="text_generation"), None, [])


def examples(*answers: str) -> list[Example]:
    return [Example(question_id=str(i), questions=("p",), answer=answer) for i, answer in enumerate(answers)]


@pytest.mark.parametrize(
    ("answer", "prediction", "f1"),
    [
        ("the cat sat", "A cat sat.", 1.0),
        ("a cat sat", "cat", 2 / 3),
        ("red red blue", "red blue blue", 2 / 3),
        ("x", "y", 0.0),
        ("the", "a", 1.0),
        ("word", "", 0.0),
        ("", "", 1.0),
    ],
)
def test_token_f1(answer: str, prediction: str, f1: float) -> None:
    assert token_f1(answer, prediction) == pytest.approx(f1)


def test_normalisation_drops_articles_as_words_only() -> None:
    assert tokens("The  theatre, an anthem!") == ["theatre", "anthem"]


@given(st.text(), st.text())
def test_f1_is_symmetric_and_one_exactly_for_the_same_words(a: str, b: str) -> None:
    assert token_f1(a, b) == token_f1(b, a)
    assert 0 <= token_f1(a, b) <= 1
    assert (token_f1(a, b) == 1) == (sorted(tokens(a)) == sorted(tokens(b)))


def test_scores_and_details() -> None:
    gold, given = examples("a cat sat", "dog"), ["cat", "Dog."]
    scores = TASK.score(gold, given)
    assert (scores["exact_match"].correct, scores["exact_match"].n) == (1, 2)
    assert scores["token_f1"].value == pytest.approx((2 / 3 + 1) / 2)
    assert [TASK.details(e, g)["correct"] for e, g in zip(gold, given, strict=True)] == [False, True]
    assert TASK.score([], [])["token_f1"].value is None


def test_word_order_counts_for_the_exact_match_alone() -> None:
    scores = TASK.score(examples("sat cat"), ["cat sat"])
    assert (scores["exact_match"].value, scores["token_f1"].value) == (0, 1)


def test_the_majority_answers_every_prompt_alike() -> None:
    found = TASK.baselines(examples("x", "y", "x"), examples("x", "z"))
    assert found["majority"]["exact_match"].correct == 1

"""Exact match: open, closed and global, with numerators and denominators; and what language alone scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.records.scores import Score
from bench.tasks._normalise import vqa as normalise

ClosedRule = Literal["yes_no", "answer_type"]


def is_correct(example: Example, prediction: str) -> bool:
    """Whether the prediction equals the gold answer after normalisation; see ``bench.tasks._normalise.vqa``."""
    return normalise(prediction) == normalise(example.answer)


def is_closed(example: Example, rule: ClosedRule) -> bool:
    """Whether the question counts as closed.

    ``yes_no``: the gold answer is yes or no (Tables 1-4 of the MILE paper). ``answer_type``: as the data set's
    annotation says; DataError if it has none.
    """
    if rule == "yes_no":
        return normalise(example.answer) in ("yes", "no")
    if example.answer_type is None:
        raise DataError(
            f"question {example.question_id} has no answer type in this data set, so `evaluate.closed: answer_type` "
            "cannot be used; set `evaluate.closed: yes_no`"
        )
    return example.answer_type == "closed"


def score(examples: Iterable[Example], predictions: Iterable[str], rule: ClosedRule) -> dict[str, Score]:
    """Accuracy of one prediction per example. Global is open + closed, numerators and denominators added."""
    correct: Counter[bool] = Counter()
    n: Counter[bool] = Counter()
    for example, prediction in zip(examples, predictions, strict=True):
        closed = is_closed(example, rule)
        n[closed] += 1
        correct[closed] += is_correct(example, prediction)
    return {
        "open": Score.share(correct[False], n[False]),
        "closed": Score.share(correct[True], n[True]),
        "global": Score.share(correct.total(), n.total()),
    }


def baselines(train: Iterable[Example], test: Sequence[Example], rule: ClosedRule) -> dict[str, dict[str, Score]]:
    """What three ways of answering without a look at the image score on ``test``.

    ``always_yes`` and ``always_no`` give that answer to every question, ``question_only`` the answer that
    :class:`Majority` learned from ``train``.
    """
    majority = Majority(train, rule)
    answers = {
        "question_only": [majority.answer(example) for example in test],
        "always_yes": ["yes"] * len(test),
        "always_no": ["no"] * len(test),
    }
    return {name: score(test, given, rule) for name, given in answers.items()}


class Majority:
    """The most common training answer to the same question (case and white space aside).

    To a question that training does not have: the most common answer among the open or the closed training
    questions, whichever the test question is. Among equally common answers, the one that training brought up last.
    """

    def __init__(self, train: Iterable[Example], rule: ClosedRule) -> None:
        counts: defaultdict[str | bool, Counter[str]] = defaultdict(Counter)
        for example in train:
            answer = normalise(example.answer)
            counts[_question_key(example)][answer] += 1
            counts[is_closed(example, rule)][answer] += 1
        self._rule: ClosedRule = rule
        self._answers = {key: _most_common_latest(answers) for key, answers in counts.items()}

    def answer(self, example: Example) -> str:
        """The answer, normalised; empty if training has no question of this kind."""
        same = self._answers.get(_question_key(example))
        return self._answers.get(is_closed(example, self._rule), "") if same is None else same


def _question_key(example: Example) -> str:
    return " ".join(example.question().lower().split())


def _most_common_latest(counts: Counter[str]) -> str:
    return max(reversed(counts.items()), key=lambda item: item[1])[0]

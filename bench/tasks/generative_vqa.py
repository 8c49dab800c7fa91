"""Questions about images, answered in words: exact match on open and closed questions, as Med-VQA papers print it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from bench.errors import DataError
from bench.plugins import Example, Score, ScoreFacts, TaskFacts, TaskSettings
from bench.tasks._base import TextTask
from bench.tasks._normalise import vqa as normalise

FACTS = TaskFacts(name="generative_vqa", inputs=("image", "text"), output="text")
METRICS = {
    "open": ScoreFacts(header="Open", title="Open accuracy", outcome="correct", only=("answer_type", "open")),
    "closed": ScoreFacts(header="Closed", title="Closed accuracy", outcome="correct", only=("answer_type", "closed")),
    "global": ScoreFacts(header="Global", title="Global accuracy", outcome="correct"),
}
MAIN = "global"
BASELINES = {"question_only": "Question only", "always_yes": "Always yes", "always_no": "Always no"}
ClosedRule = Literal["yes_no", "answer_type"]


class Settings(TaskSettings):
    """No settings; ``evaluate.closed`` says which questions are closed."""

    name: Literal["generative_vqa"]


class GenerativeVqa(TextTask):
    """Exact match after normalisation, of open and closed questions."""

    facts = FACTS

    def __init__(self, rule: ClosedRule) -> None:
        self._rule = rule

    def check(self, example: Example) -> None:
        """Raise DataError if the rule for closed questions cannot be applied to it."""
        self.is_closed(example)

    def is_closed(self, example: Example) -> bool:
        """Whether the question counts as closed.

        ``yes_no``: the gold answer is yes or no (Tables 1-4 of the MILE paper). ``answer_type``: as the data set's
        annotation says; DataError if it has none.
        """
        if self._rule == "yes_no":
            return normalise(example.answer) in ("yes", "no")
        if example.answer_type is None:
            raise DataError(
                f"question {example.question_id} has no answer type in this data set, so `evaluate.closed: "
                "answer_type` cannot be used; set `evaluate.closed: yes_no`"
            )
        return example.answer_type == "closed"

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Accuracy of one prediction per example. Global is open + closed, numerators and denominators added."""
        correct, n = Counter[bool](), Counter[bool]()
        for example, prediction in zip(examples, predictions, strict=True):
            closed = self.is_closed(example)
            n[closed] += 1
            correct[closed] += _is_correct(example, prediction)
        return {
            "open": Score.share(correct[False], n[False]),
            "closed": Score.share(correct[True], n[True]),
            "global": Score.share(correct.total(), n.total()),
        }

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """Scores of three baselines that ignore the image."""
        return {
            "question_only": self.score(test, self.answer_from_question(train, test)),
            "always_yes": self.score(test, ["yes"] * len(test)),
            "always_no": self.score(test, ["no"] * len(test)),
        }

    def answer_from_question(self, train: Sequence[Example], test: Sequence[Example]) -> list[str]:
        """The most common training answer to the same question (case and white space aside), normalised.

        To a question that training lacks: the most common answer to its open or closed training questions; empty if
        there is none. Of equally common answers the last in training.
        """
        counts: defaultdict[str | bool, Counter[str]] = defaultdict(Counter)
        for example in train:
            answer = normalise(example.answer)
            counts[_question_key(example)][answer] += 1
            counts[self.is_closed(example)][answer] += 1
        best = {key: max(reversed(answers.items()), key=lambda item: item[1])[0] for key, answers in counts.items()}
        return [best.get(_question_key(e), best.get(self.is_closed(e), "")) for e in test]

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``answer_type`` by the rule for closed questions, and ``correct``."""
        answer_type = "closed" if self.is_closed(example) else "open"
        return {"answer_type": answer_type, "correct": _is_correct(example, prediction)}


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> GenerativeVqa:  # noqa: ARG001
    """The task with the rule of ``evaluate.closed``."""
    return GenerativeVqa(evaluate.closed)


def _is_correct(example: Example, prediction: str) -> bool:
    return normalise(prediction) == normalise(example.answer)


def _question_key(example: Example) -> str:
    return " ".join(example.question().lower().split())

"""Prompts answered in words, by causal and sequence-to-sequence models: exact match and token F1.

Both scores follow SQuAD (Rajpurkar et al. 2016), as does the normalisation before them where the spec names no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from bench.plugins import Example, Score, ScoreFacts, TaskFacts, TaskSettings
from bench.tasks._base import TextTask, most_common_answer
from bench.tasks._normalise import Rule, form_of, words_of

FACTS = TaskFacts(name="text_generation", inputs=("text",), output="text")
METRICS = {
    "exact_match": ScoreFacts(header="Exact match", outcome="correct"),
    "token_f1": ScoreFacts(header="Token F1", outcome="token_f1"),
}
MAIN = "exact_match"
BASELINES = {"majority": "Most common answer"}
_RULES: dict[Rule, str] = {
    "squad": "without case, punctuation and articles, as SQuAD",
    "vqa": "without case, spaces beside punctuation and periods at the end",
    "none": "as they are",
}


class Settings(TaskSettings):
    """Comparison of answers."""

    name: Literal["text_generation"]
    normalise: Rule = "squad"
    """Form in which answers are compared. ``squad``: lower case, without punctuation and articles, but with signs,
    decimal points and other marks that distinguish answers; ``vqa``: as the task generative_vqa, with punctuation and
    articles; ``none``: as they are."""

    def describe_scoring(self) -> str:
        """Texts that count as equal, in words."""
        return f"Answers are compared {_RULES[self.normalise]}"


class TextGeneration(TextTask):
    """Exact match and token F1 after normalisation."""

    facts = FACTS

    def __init__(self, rule: Rule) -> None:
        self._form = form_of(rule)
        self._words = words_of(rule)

    def check(self, example: Example) -> None:
        """Accepts every example: any text can be compared."""

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Share of exact matches and mean token F1."""
        pairs = list(zip(examples, predictions, strict=True))
        n = len(pairs)
        total = sum(self._token_f1(*pair) for pair in pairs)
        return {
            "exact_match": Score.share(sum(self._is_match(*pair) for pair in pairs), n),
            "token_f1": Score(value=total / n if n else None, n=n),
        }

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """The most common training answer for every prompt."""
        return {"majority": self.score(test, [most_common_answer(train)] * len(test))}

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``correct`` and ``token_f1``."""
        return {"correct": self._is_match(example, prediction), "token_f1": self._token_f1(example, prediction)}

    def _is_match(self, example: Example, prediction: str) -> bool:
        return self._form(example.answer) == self._form(prediction)

    def _token_f1(self, example: Example, prediction: str) -> float:
        """Harmonic mean of precision and recall of the prediction's words, counted with repetition; two texts without
        words agree."""
        gold, given = self._words(example.answer), self._words(prediction)
        if not gold or not given:
            return float(gold == given)
        common = (Counter(gold) & Counter(given)).total()
        return 2 * common / (len(gold) + len(given))


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> TextGeneration:  # noqa: ARG001
    """The task with the rule of ``task.normalise``."""
    return TextGeneration(settings.normalise)

"""Prompts answered in words, by causal and sequence-to-sequence models: exact match and token F1.

Both scores, and the normalisation before them, follow SQuAD (Rajpurkar et al. 2016): lower case, without punctuation,
without the articles a, an and the, single spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.protocols import Example, GenerateOptions, ScoreFacts, TaskFacts, TextModel
from bench.record import TaskScore
from bench.settings import TaskSettings

if TYPE_CHECKING:
    import torch

FACTS = TaskFacts(name="text_generation", inputs=("text",), output="text")
METRICS = {
    "exact_match": ScoreFacts(header="Exact match", outcome="correct"),
    "token_f1": ScoreFacts(header="Token F1", outcome="token_f1"),
}
MAIN = "exact_match"
BASELINES = {"majority": "Most common answer"}
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Settings(TaskSettings):
    """Nothing to set."""

    name: Literal["text_generation"]


def tokens(text: str) -> list[str]:
    """The words that are compared."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def token_f1(answer: str, prediction: str) -> float:
    """Harmonic mean of precision and recall of the prediction's words, repeated ones as often as both have them; two
    texts without words agree."""
    gold, given = tokens(answer), tokens(prediction)
    if not gold or not given:
        return float(gold == given)
    common = (Counter(gold) & Counter(given)).total()
    return 2 * common / (len(gold) + len(given))


class TextGeneration:
    """See ``bench.protocols.Task``."""

    facts = FACTS

    def check(self, example: Example) -> None:
        """Every text can be compared."""

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:  # noqa: ARG002 - the model tokenises them
        """None: the model's own inputs hold the answers."""
        return {}

    def loss(self, model: TextModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's own, of the answer's tokens."""
        return model.loss(batch)

    def predict(self, model: TextModel, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """Answers as the model generates them."""
        return model.generate(batch, options)

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, TaskScore]:
        """Share of exact matches and mean token F1."""
        pairs = [(example.answer, given) for example, given in zip(examples, predictions, strict=True)]
        n = len(pairs)
        total = sum(token_f1(*pair) for pair in pairs)
        return {
            "exact_match": TaskScore.share(sum(tokens(gold) == tokens(given) for gold, given in pairs), n),
            "token_f1": TaskScore(value=total / n if n else None, n=n),
        }

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, TaskScore]]:
        """The most common training answer for every prompt; of equally common ones the first in the alphabet."""
        counts = Counter(example.answer for example in train)
        majority = min(counts, key=lambda answer: (-counts[answer], answer))
        return {"majority": self.score(test, [majority] * len(test))}

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``correct`` and ``token_f1``."""
        return {
            "correct": tokens(example.answer) == tokens(prediction),
            "token_f1": token_f1(example.answer, prediction),
        }


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> TextGeneration:  # noqa: ARG001
    """See ``TaskPlugin.create``."""
    return TextGeneration()

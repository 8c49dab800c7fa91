"""Questions about images, answered in words: exact match on open and closed questions, as Med-VQA papers print it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.plugins.contracts import Example, GenerateOptions, ScoreFacts, TaskFacts, TextModel
from bench.plugins.settings import TaskSettings
from bench.records.scores import Score
from bench.tasks import _vqa_scoring

if TYPE_CHECKING:
    import torch

FACTS = TaskFacts(name="generative_vqa", inputs=("image", "text"), output="text")
METRICS = {
    "open": ScoreFacts(header="Open", title="Open accuracy", outcome="correct", only=("answer_type", "open")),
    "closed": ScoreFacts(header="Closed", title="Closed accuracy", outcome="correct", only=("answer_type", "closed")),
    "global": ScoreFacts(header="Global", title="Global accuracy", outcome="correct"),
}
MAIN = "global"
BASELINES = {"question_only": "Question only", "always_yes": "Always yes", "always_no": "Always no"}


class Settings(TaskSettings):
    """Nothing to set here; which questions are closed says ``evaluate.closed``."""

    name: Literal["generative_vqa"]


class GenerativeVqa:
    """See ``bench.plugins.contracts.Task``."""

    facts = FACTS

    def __init__(self, rule: _vqa_scoring.ClosedRule) -> None:
        self._rule = rule

    def check(self, example: Example) -> None:
        """Raise DataError if the rule for closed questions cannot be applied to it."""
        _vqa_scoring.is_closed(example, self._rule)

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:  # noqa: ARG002 - the model tokenises them
        """None: the model's own inputs hold the answers."""
        return {}

    def loss(self, model: TextModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's own, of the answer's tokens."""
        return model.loss(batch)

    def predict(self, model: TextModel, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """Answers as the model generates them."""
        return model.generate(batch, options)

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Exact match after normalisation."""
        return _vqa_scoring.score(examples, predictions, self._rule)

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """What language alone scores."""
        return _vqa_scoring.baselines(train, test, self._rule)

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``answer_type`` as it was counted, and ``correct``."""
        closed = _vqa_scoring.is_closed(example, self._rule)
        return {
            "answer_type": "closed" if closed else "open",
            "correct": _vqa_scoring.is_correct(example, prediction),
        }


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> GenerativeVqa:  # noqa: ARG001
    """The task with the rule of ``evaluate.closed``."""
    return GenerativeVqa(evaluate.closed)

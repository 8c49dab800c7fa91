"""Counting: a class per number, where a miss by one is half a hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import DataError
from bench.plugins import Example, GenerateOptions, LabelModel, Score, ScoreFacts, TaskFacts, TaskSettings

if TYPE_CHECKING:
    import torch

FACTS = TaskFacts(name="counting", inputs=("image",), output="label")
METRICS = {"within_one": ScoreFacts(header="Within one", outcome="within_one")}
MAIN = "within_one"
BASELINES = {"median": "Median count"}


class Settings(TaskSettings):
    """Numbers from 0 on."""

    name: Literal["counting"]
    most: int = 4
    """The largest number that can be answered."""


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> Counting:  # noqa: ARG001
    """Nothing is learnt from the training examples: the labels are known."""
    return Counting(replace(FACTS, labels=tuple(map(str, range(settings.most + 1))), labels_from="spec"))


class Counting:
    """See ``bench.plugins.contracts.Task``."""

    def __init__(self, facts: TaskFacts) -> None:
        self.facts = facts

    def check(self, example: Example) -> None:
        """Raise DataError for what is no number, or one too large."""
        if example.answer not in self.facts.labels:
            raise DataError(f"cannot count to {example.answer!r}; raise task.most or correct the data")

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """``labels``: (batch,) int64."""
        import torch

        return {"labels": torch.tensor([int(answer) for answer in answers])}

    def loss(self, model: LabelModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(model.logits(batch), batch["labels"])

    def predict(
        self,
        model: LabelModel,
        batch: dict[str, torch.Tensor],
        options: GenerateOptions,  # noqa: ARG002 - nothing is generated
    ) -> list[str]:
        """The number of the largest logit."""
        return [str(number) for number in model.logits(batch).argmax(dim=-1).tolist()]

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Share of answers that are off by at most one."""
        near = [_near(example, given) for example, given in zip(examples, predictions, strict=True)]
        return {"within_one": Score.share(sum(near), len(near))}

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """The median of the training answers for every picture."""
        middle = median_low(int(example.answer) for example in train)
        return {"median": self.score(test, [str(middle)] * len(test))}

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``correct``, and what the metric counts."""
        return {"correct": prediction == example.answer, "within_one": _near(example, prediction)}


def _near(example: Example, prediction: str) -> bool:
    return abs(int(example.answer) - int(prediction)) <= 1

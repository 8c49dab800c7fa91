"""Base classes of tasks with one label per example or with generated text, and influences of examples on scores."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from bench.errors import DataError
from bench.plugins import Example, GenerateOptions, LabelModel, Score, ScoreFacts, TaskFacts, TaskSettings, TextModel
from bench.registry import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


def most_common_answer(train: Sequence[Example]) -> str:
    """The most common training answer; of equally common ones the first in the alphabet."""
    counts = Counter(example.answer for example in train)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def f1_influence(answers: Sequence[str], predictions: Sequence[str]) -> NDArray[np.float64]:
    """(examples,): macro F1 plus the influence of each example on it; see ``ScoreFacts.influence``."""
    import numpy as np

    gold, given, classes = _indices(answers, predictions)
    # F1 of a class is 2 hits / marked; the derivatives of hits and marked by an example give its influence.
    marked = np.bincount(gold, minlength=classes) + np.bincount(given, minlength=classes)
    f1 = 2 * np.bincount(gold[gold == given], minlength=classes) / marked
    moved: NDArray[np.float64] = 2 * (gold == given) / marked[gold] - (f1 / marked)[gold] - (f1 / marked)[given]
    return float(f1.mean()) + len(gold) / classes * moved


def mcc_influence(answers: Sequence[str], predictions: Sequence[str]) -> NDArray[np.float64]:
    """(examples,): Matthews' correlation of several classes (Gorodkin 2004) plus the influence of each example."""
    import numpy as np

    gold, given, classes = _indices(answers, predictions)
    n, right = len(gold), gold == given
    true, predicted = np.bincount(gold, minlength=classes), np.bincount(given, minlength=classes)
    above = float(right.sum() * n - true @ predicted)
    of_true, of_predicted = float(n**2 - true @ true), float(n**2 - predicted @ predicted)
    if not of_true or not of_predicted:
        return np.zeros(n)  # a single class: 0 by convention
    mcc = above / math.sqrt(of_true * of_predicted)
    # Derivatives of the numerator and, relative to it, of the denominator by the weight of each example.
    moved_above = right * n + right.sum() - true[given] - predicted[gold]
    moved_below = (n - predicted[given]) / of_predicted + (n - true[gold]) / of_true
    moved: NDArray[np.float64] = moved_above / math.sqrt(of_true * of_predicted) - mcc * moved_below
    return mcc + n * moved


def _indices(answers: Sequence[str], predictions: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Classes of answers and of predictions as indices, and the number of classes."""
    import numpy as np

    classes, both = np.unique([*answers, *predictions], return_inverse=True)
    return both[: len(answers)], both[len(answers) :], len(classes)


LABEL_METRICS = {
    "accuracy": ScoreFacts(header="Accuracy", outcome="correct"),
    "macro_f1": ScoreFacts(header="Macro F1", influence=f1_influence),
    "mcc": ScoreFacts(header="MCC", unit="", factor=1.0, digits=3, influence=mcc_influence, lowest=-1.0),
}
LABEL_BASELINES = {"majority": "Majority class"}


class LabelTaskSettings(TaskSettings):
    """A task whose answers are classes."""

    labels: list[str] | None = None
    """Names of the classes in the order of the model's outputs, e.g. those of a fine-tuned head; null: the answers of
    the training split, sorted."""
    num_labels: int | None = Field(default=None, ge=2)
    """Number of classes, for an estimate without the data; null: as many as the data have, else 2."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("names a label twice")
        if self.labels is not None and len(self.labels) < 2:
            raise ValueError("names fewer than two labels")
        if self.labels is not None and self.num_labels not in (None, len(self.labels)):
            raise ValueError(f"num_labels is {self.num_labels}, but labels has {len(self.labels)}; remove num_labels")
        return self

    def add_labels(self, facts: TaskFacts, train: Sequence[Example]) -> TaskFacts:
        """The facts with the labels of the spec, of the training examples, or assumed ones. Raises DataError for
        training examples of a single class, and for another number than ``num_labels``."""
        if self.labels is not None:
            return replace(facts, labels=tuple(self.labels), labels_from="spec")
        if not train:  # an estimate without the data
            numbered = tuple(map(str, range(self.num_labels or 2)))
            return replace(facts, labels=numbered, labels_from="spec" if self.num_labels else "assumed")
        labels = tuple(sorted({example.answer for example in train}))
        if len(labels) < 2:
            raise DataError(f"all training examples are of the class {labels[0]!r}; give examples of a second one")
        if self.num_labels not in (None, len(labels)):
            raise DataError(
                f"task.num_labels is {self.num_labels}, but the training data have {len(labels)} classes; remove it, "
                "or name all classes in task.labels"
            )
        return replace(facts, labels=labels)


class LabelTask:
    """A ``bench.plugins.contracts.Task`` of labels; ``metrics``: names in ``LABEL_METRICS``."""

    def __init__(
        self, facts: TaskFacts, settings: LabelTaskSettings, metrics: Sequence[str], train: Sequence[Example]
    ) -> None:
        self.facts = settings.add_labels(facts, train)
        self._smoothing = settings.label_smoothing
        self._metrics = metrics
        self._index = {label: index for index, label in enumerate(self.facts.labels)}

    def check(self, example: Example) -> None:
        """Raise DataError if the answer is no class."""
        self._label(example.answer)

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:
        """``labels``: (batch,) int64."""
        import torch

        return {"labels": torch.tensor([self._label(answer) for answer in answers])}

    def loss(self, model: LabelModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy over the batch."""
        from torch.nn.functional import cross_entropy

        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return cross_entropy(model.logits(inputs), batch["labels"], label_smoothing=self._smoothing)

    def predict(
        self,
        model: LabelModel,
        batch: dict[str, torch.Tensor],
        options: GenerateOptions,  # noqa: ARG002 - nothing is generated
    ) -> list[str]:
        """The class of the largest logit."""
        return [self.facts.labels[index] for index in model.logits(batch).argmax(dim=-1).tolist()]

    def score(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, Score]:
        """Accuracy; macro F1 over the classes among answers and predictions, and Matthews' correlation, both as in
        scikit-learn; a class that is never predicted has F1 = 0."""
        from sklearn.metrics import f1_score, matthews_corrcoef

        gold, given = [example.answer for example in examples], list(predictions)
        correct = sum(a == b for a, b in zip(gold, given, strict=True))
        n = len(gold)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a single class: the scores then are 1 or 0, as documented
            scores = {
                "accuracy": Score.share(correct, n),
                "macro_f1": Score(value=float(f1_score(gold, given, average="macro", zero_division=0)), n=n),
                "mcc": Score(value=float(matthews_corrcoef(gold, given)), n=n),
            }
        return {name: scores[name] for name in self._metrics}

    def baselines(self, train: Sequence[Example], test: Sequence[Example]) -> dict[str, dict[str, Score]]:
        """The most common training class for every example."""
        return {"majority": self.score(test, [most_common_answer(train)] * len(test))}

    def details(self, example: Example, prediction: str) -> dict[str, Any]:
        """``correct``."""
        return {"correct": prediction == example.answer}

    def _label(self, answer: str) -> int:
        if answer not in self._index:
            known = did_you_mean(answer, self.facts.labels)
            raise DataError(f"{answer!r} is no label of the task{known}; correct the data, or name it in task.labels")
        return self._index[answer]


class TextTask:
    """Base of each ``bench.plugins.contracts.Task`` whose answers the model generates."""

    def targets(self, answers: Sequence[str]) -> dict[str, torch.Tensor]:  # noqa: ARG002 - the model tokenises them
        """No targets: the model's inputs hold the answers."""
        return {}

    def loss(self, model: TextModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's loss over the tokens of the answers."""
        return model.loss(batch)

    def predict(self, model: TextModel, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """Answers as the model generates them."""
        return model.generate(batch, options)

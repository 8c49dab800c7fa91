"""One class per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from bench.plugins import Example, TaskFacts
from bench.tasks._base import LABEL_BASELINES, LABEL_METRICS, LabelTask, LabelTaskSettings

FACTS = TaskFacts(name="text_classification", inputs=("text",), output="label")
METRICS = {name: LABEL_METRICS[name] for name in ("accuracy", "macro_f1", "mcc")}
MAIN = "accuracy"
BASELINES = LABEL_BASELINES


class Settings(LabelTaskSettings):
    """Classes of texts."""

    name: Literal["text_classification"]


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> LabelTask:  # noqa: ARG001
    """The task, with the labels of the spec or of ``train``."""
    return LabelTask(FACTS, settings, tuple(METRICS), train)

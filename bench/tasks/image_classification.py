"""One class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from bench.plugins import Example, TaskFacts
from bench.tasks._base import LABEL_BASELINES, LABEL_METRICS, LabelTask, LabelTaskSettings

FACTS = TaskFacts(name="image_classification", inputs=("image",), output="label")
METRICS = {name: LABEL_METRICS[name] for name in ("accuracy", "macro_f1")}
MAIN = "accuracy"
BASELINES = LABEL_BASELINES


class Settings(LabelTaskSettings):
    """Classes of images."""

    name: Literal["image_classification"]


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> LabelTask:  # noqa: ARG001
    """The task, with the labels of the spec or of ``train``."""
    return LabelTask(FACTS, settings, tuple(METRICS), train)

"""One class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from bench.plugins.contracts import Example, TaskFacts
from bench.tasks import _labels

FACTS = TaskFacts(name="image_classification", inputs=("image",), output="label")
METRICS = {name: _labels.METRICS[name] for name in ("accuracy", "macro_f1")}
MAIN = "accuracy"
BASELINES = _labels.BASELINES


class Settings(_labels.LabelTaskSettings):
    """Classes of images."""

    name: Literal["image_classification"]


def create(settings: Settings, evaluate: Any, train: Sequence[Example]) -> _labels.LabelTask:  # noqa: ARG001
    """See ``TaskPlugin.create``."""
    return _labels.LabelTask(FACTS, settings, tuple(METRICS), train)

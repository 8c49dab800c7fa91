"""Answers to the test examples, and one line about each in ``predictions.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from bench.execution.contracts import Progress
from bench.files import write_atomic
from bench.plugins.contracts import BenchModel, Example, Task
from bench.spec.sections import EvaluateSettings
from bench.training.data import Batch
from bench.training.device import Precision


def predict(
    model: BenchModel,
    task: Task,
    batches: Iterator[Batch],
    settings: EvaluateSettings,
    precision: Precision,
    total: int,
    beat: Callable[[Progress], None],
) -> list[str]:
    """One answer per test example, in the order of the batches."""
    model.module.eval()
    answers: list[str] = []
    for batch in batches:
        with torch.no_grad(), precision.context():
            answers += task.predict(model, precision.to_device(batch.tensors), settings.options())
        beat(Progress(phase="eval", done=len(answers), total=total))
    return answers


def write_predictions(path: Path, task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> None:
    """One JSON object per example, in order, with the task's own fields at its end."""
    lines = [
        json.dumps(
            {
                "question_id": example.question_id,
                "image": example.image,
                "question": example.question(),
                **({} if example.text_pair is None else {"text_pair": example.text_pair}),
                "answer": example.answer,
                "prediction": prediction,
                **task.details(example, prediction),
            },
            ensure_ascii=False,
        )
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    write_atomic(path, "".join(line + "\n" for line in lines).encode())

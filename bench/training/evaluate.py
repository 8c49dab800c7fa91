"""Answers to the test examples, and a line for each in ``predictions.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.execution.contracts import Progress
from bench.files import write_atomic
from bench.plugins.contracts import Example, Task
from bench.training.adapt import Run
from bench.training.data import evaluation_batches


def predict(run: Run, beat: Callable[[Progress], None]) -> list[str]:
    """An answer per test example, in order."""
    settings, answers = run.cell.evaluate, list[str]()
    run.model.module.eval()
    for batch in evaluation_batches(run.data, run.model, run.task, batch_size=settings.batch_size):
        with torch.no_grad(), run.precision.context():
            answers += run.task.predict(run.model, run.precision.to_device(batch.tensors), settings.options())
        beat(Progress(phase="eval", done=len(answers), total=len(run.data.test)))
    return answers


def write_predictions(path: Path, task: Task, examples: Sequence[Example], predictions: Sequence[str]) -> None:
    """Write a JSON object per example, in order, with the fields of the task last."""
    lines = [
        {
            "question_id": example.question_id,
            "image": example.image,
            "question": example.question(),
            **({} if example.text_pair is None else {"text_pair": example.text_pair}),
            "answer": example.answer,
            "prediction": prediction,
            **task.details(example, prediction),
        }
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())

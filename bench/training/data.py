"""From a data set to batches of tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar, cast

import torch
from PIL.Image import Image

from bench import registry
from bench.errors import DataError
from bench.plugins.contracts import BenchModel, Example, OpenedData, PairModel, Task
from bench.plugins.settings import DataSettings
from bench.spec.cell import Cell
from bench.spec.sections import TrainSettings

_Item = TypeVar("_Item")
_CACHE_BYTES = 512 * 2**20
"""Decoded images kept in memory, at most: all of a small data set, part of a large one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some examples, ready for the model."""

    examples: Sequence[Example]
    tensors: dict[str, torch.Tensor]


@dataclass(kw_only=True, slots=True)
class LoadedData:
    """The opened data set and the examples this cell uses."""

    source: OpenedData
    train: Sequence[Example]
    test: Sequence[Example]
    all_train: Sequence[Example] = ()
    """The training split without the cell's limit, for the labels of a task."""
    _images: dict[str, Image] = field(default_factory=dict)
    _image_bytes: int = 0

    def image(self, example: Example) -> Image:
        """The decoded image, from memory if it was decoded before."""
        name = example.image_name
        image = self._images.get(name)
        if image is None:
            image = self.source.image(example)
            size = image.width * image.height * len(image.getbands())
            if self._image_bytes + size <= _CACHE_BYTES:
                self._images[name] = image
                self._image_bytes += size
        return image

    def training_batch(self, model: BenchModel, task: Task, examples: Sequence[Example], rng: random.Random) -> Batch:
        """Questions drawn by ``rng`` from their pools; inputs and answers as tensors on the CPU."""
        answers = [e.answer for e in examples]
        tensors = self._collate(model, task, examples, rng, answers if task.facts.output == "text" else ())
        return Batch(examples=examples, tensors=tensors | task.targets(answers))

    def test_batch(self, model: BenchModel, task: Task, examples: Sequence[Example]) -> Batch:
        """Inputs alone, each with the first question of its pool."""
        return Batch(examples=examples, tensors=self._collate(model, task, examples, None, ()))

    def _collate(
        self,
        model: BenchModel,
        task: Task,
        examples: Sequence[Example],
        rng: random.Random | None,
        answers: Sequence[str],
    ) -> dict[str, torch.Tensor]:
        images = [self.image(e) for e in examples] if "image" in task.facts.inputs else []
        with_text = "text" in task.facts.inputs
        questions = [e.question(rng) if with_text else "" for e in examples]
        if with_text and (pairs := pairs_of(model, examples)):
            return cast(PairModel, model).collate(images, questions, answers, pairs)
        return model.collate(images, questions, answers)


def pairs_of(model: BenchModel, examples: Sequence[Example]) -> list[str]:
    """Second texts of the examples; empty where each has one text. Raises DataError if the model reads one."""
    pairs = [example.text_pair for example in examples if example.text_pair is not None]
    if pairs and not getattr(model, "reads_pairs", False):
        raise DataError(
            "this model reads one text, not pairs: write both columns into one text, e.g. "
            '`text: "{premise} {hypothesis}"`, and remove data.columns.text_pair'
        )
    return pairs


def load_data(settings: DataSettings, *, images: bool = True) -> LoadedData:
    """Open the data set and draw this cell's subsets; ``images=False``: questions and answers suffice."""
    plugin = registry.load("datasets", settings.name)
    opens = plugin.load if images else getattr(plugin, "load_annotations", plugin.load)
    source: OpenedData = opens(settings)
    train = _splits(source, settings.train_split)
    return LoadedData(
        source=source,
        all_train=train,
        train=subset(train, settings.train_limit, settings.subset_seed),
        test=subset(_splits(source, settings.test_split), settings.test_limit, settings.subset_seed),
    )


def task_of(cell: Cell, data: LoadedData | None = None) -> Task:
    """The cell's task; without data its labels may be assumed. Raises DataError for data that it cannot use."""
    plugin = registry.load("tasks", cell.task.name)
    task: Task = plugin.create(cell.task, cell.evaluate, data.all_train if data else ())
    for examples in (data.train, data.test) if data else ():
        for example in examples:
            _check_inputs(task, example)
            task.check(example)
    return task


def _check_inputs(task: Task, example: Example) -> None:
    for kind, given in (("image", example.image is not None), ("text", bool(example.questions))):
        if kind in task.facts.inputs and not given:
            raise DataError(
                f"example {example.question_id} has no {kind}, which {task.facts.name} needs; choose other data or "
                "name the column that holds it"
            )


def _splits(source: OpenedData, names: str) -> Sequence[Example]:
    parts = [source.split(name.strip()) for name in names.split("+")]
    examples = parts[0] if len(parts) == 1 else [example for part in parts for example in part]
    if not len(examples):
        raise DataError(f"split {names!r} has no examples")
    return examples


def subset(examples: Sequence[Example], limit: int | None, seed: int) -> Sequence[Example]:
    """At most ``limit`` examples drawn at random, in the order of the file."""
    if limit is None or limit >= len(examples):
        return examples
    return [examples[i] for i in sorted(random.Random(seed).sample(range(len(examples)), limit))]


def training_batches(
    data: LoadedData, model: BenchModel, task: Task, settings: TrainSettings, *, steps: int, seed: int
) -> Iterator[Sequence[Batch]]:
    """The micro-batches of ``steps`` optimizer steps, reshuffled each epoch if asked for.

    No step reaches into the next epoch: an epoch's last micro-batch and last step may be smaller. The order and the
    questions drawn depend on ``seed`` alone, not on what the model does with torch's generators.
    """
    rng = random.Random(seed)
    size, per_step = settings.batch_size, settings.batch_size * settings.gradient_accumulation_steps

    def endless() -> Iterator[Sequence[Batch]]:
        while True:
            order: Sequence[int] = range(len(data.train))
            if settings.shuffle:
                order = rng.sample(order, len(order))
            for start in range(0, len(order), per_step):
                group = [data.train[i] for i in order[start : start + per_step]]
                yield [
                    data.training_batch(model, task, group[at : at + size], rng) for at in range(0, len(group), size)
                ]

    return prefetched(islice(endless(), steps))


def evaluation_batches(data: LoadedData, model: BenchModel, task: Task, *, batch_size: int) -> Iterator[Batch]:
    """All test examples in order."""
    starts = range(0, len(data.test), batch_size)
    return prefetched(data.test_batch(model, task, data.test[start : start + batch_size]) for start in starts)


def prefetched(batches: Iterator[_Item]) -> Iterator[_Item]:
    """The same batches (or groups of them), the next one made by a thread while this one is used.

    One thread and one batch ahead: the order stays fixed, and decoding hides behind a GPU's work.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ahead = thread.submit(next, batches, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, batches, None)
            yield batch

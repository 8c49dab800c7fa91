"""From a data set to batches of tensors, and the facts about its examples in a record."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeVar, cast

import torch
from PIL.Image import Image

from bench import registry
from bench.errors import DataError
from bench.plugins.contracts import BenchModel, Example, OpenedData, PairModel, Task
from bench.plugins.settings import DataSettings
from bench.records.record import CutCount, Overlap
from bench.spec.cell import Cell
from bench.spec.sections import TrainSettings

_Item = TypeVar("_Item")
_CACHE_BYTES = 512 * 2**20
"""Limit for decoded images in memory: all of a small data set, part of a large one."""
_MAX_TEXTS = 20_000
"""Examples of a split whose texts are checked for length; of a larger split, evenly spaced examples."""
_MAX_IMAGES = 5_000
"""Limit for images that are decoded to compare their contents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Examples and their tensors."""

    examples: Sequence[Example]
    tensors: dict[str, torch.Tensor]


@dataclass(kw_only=True, slots=True)
class LoadedData:
    """An opened data set and the examples that a cell uses."""

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
        """Inputs and targets on the CPU; ``rng`` draws each question from its pool."""
        answers = [e.answer for e in examples]
        tensors = self._collate(model, task, examples, answers if task.facts.output == "text" else (), rng)
        return Batch(examples=examples, tensors=tensors | task.targets(answers))

    def test_batch(self, model: BenchModel, task: Task, examples: Sequence[Example]) -> Batch:
        """Inputs on the CPU, each with the first question of its pool."""
        return Batch(examples=examples, tensors=self._collate(model, task, examples, ()))

    def _collate(
        self,
        model: BenchModel,
        task: Task,
        examples: Sequence[Example],
        answers: Sequence[str],
        rng: random.Random | None = None,
    ) -> dict[str, torch.Tensor]:
        images = [self.image(e) for e in examples] if "image" in task.facts.inputs else []
        with_text = "text" in task.facts.inputs
        questions = [e.question(rng) if with_text else "" for e in examples]
        if with_text and (pairs := pairs_of(model, examples)):
            return cast(PairModel, model).collate(images, questions, answers, pairs)
        return model.collate(images, questions, answers)


def pairs_of(model: BenchModel, examples: Sequence[Example]) -> list[str]:
    """Second texts of the examples; empty if they have none. Raises DataError if the model reads one text only."""
    pairs = [example.text_pair for example in examples if example.text_pair is not None]
    if pairs and not getattr(model, "reads_pairs", False):
        raise DataError(
            "this model reads one text, not pairs: write both columns into one text, e.g. "
            '`text: "{premise} {hypothesis}"`, and remove data.columns.text_pair'
        )
    return pairs


def load_data(settings: DataSettings, *, images: bool = True) -> LoadedData:
    """Open the data set and draw the cell's subsets; ``images=False``: annotations suffice."""
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
    """The cell's task; without data its labels may be assumed. Raises DataError for an example that it cannot use."""
    plugin = registry.load("tasks", cell.task.name)
    task: Task = plugin.create(cell.task, cell.evaluate, data.all_train if data else ())
    for example in chain(data.train, data.test) if data else ():
        for kind, present in (("image", example.image is not None), ("text", bool(example.questions))):
            if kind in task.facts.inputs and not present:
                raise DataError(
                    f"example {example.question_id} has no {kind}, which {task.facts.name} needs; choose other data "
                    "or name the column that holds it"
                )
        task.check(example)
    return task


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
    """Micro-batches of ``steps`` optimizer steps; order and questions depend on ``seed`` alone.

    No step reaches into the next epoch: an epoch's last micro-batch and last step may be smaller.
    """
    rng = random.Random(seed)  # not torch's generator, which the model uses
    size, per_step = settings.batch_size, settings.batch_size * settings.gradient_accumulation_steps

    def endless() -> Iterator[Sequence[Batch]]:
        while True:
            order: Sequence[int] = range(len(data.train))
            if settings.shuffle:
                order = rng.sample(order, len(order))
            for start in range(0, len(order), per_step):
                group = [data.train[i] for i in order[start : start + per_step]]
                micro_batches = (group[at : at + size] for at in range(0, len(group), size))
                yield [data.training_batch(model, task, examples, rng) for examples in micro_batches]

    return prefetched(islice(endless(), steps))


def evaluation_batches(data: LoadedData, model: BenchModel, task: Task, *, batch_size: int) -> Iterator[Batch]:
    """All test examples in order."""
    starts = range(0, len(data.test), batch_size)
    return prefetched(data.test_batch(model, task, data.test[start : start + batch_size]) for start in starts)


def prefetched(batches: Iterator[_Item]) -> Iterator[_Item]:
    """The same batches; a thread prepares the next batch while the caller uses the present one."""
    # One thread and one batch ahead: the order stays fixed, and decoding hides behind a GPU's work.
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ahead = thread.submit(next, batches, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, batches, None)
            yield batch


def count_cut(data: LoadedData, model: BenchModel, task: Task) -> dict[str, CutCount]:
    """Truncated questions and answers by split; empty if the task has no text or the model does not count them."""
    if "text" not in task.facts.inputs:
        return {}
    pairs_of(model, [*data.train[:1], *data.test[:1]])
    if not hasattr(model, "cut_texts"):
        return {}
    counts = {}
    for split, examples in (("train", data.train), ("test", data.test)):
        checked = [examples[i] for i in range(0, len(examples), max(1, len(examples) // _MAX_TEXTS))]
        questions = [text for e in checked for text in e.questions]
        answers = [e.answer for e in checked] if split == "train" and task.facts.output == "text" else []
        pairs = pairs_of(model, [e for e in checked for _ in e.questions])
        cut = cast(PairModel, model).cut_texts(questions, answers, *([pairs] if pairs else ()))
        counts[f"{split}_questions"] = CutCount(cut=cut.questions, n=len(questions))
        if answers:
            counts[f"{split}_answers"] = CutCount(cut=cut.answers, n=len(answers))
    for name, count in counts.items():
        if count.cut:
            print(f"cut: {count.cut:,} of {count.n:,} {name.replace('_', ' ')} are longer than the model takes")
    return counts


def overlap(data: LoadedData, task: Task, settings: DataSettings) -> Overlap:
    """Test examples that are training examples, too, by text (case and white space ignored) and image."""
    seeing, reading = ("image" in task.facts.inputs, "text" in task.facts.inputs)
    trained: defaultdict[tuple[str, ...], dict[str | None, Example]] = defaultdict(dict)
    for example in data.train:
        for text in example.questions if reading else ("",):
            trained[_text_key(text, example)][example.image if seeing else None] = example
    other_name: defaultdict[tuple[str, ...], list[Example]] = defaultdict(list)
    same = 0
    for example in data.test:
        key = _text_key(example.question() if reading else "", example)
        with_text = trained.get(key, {})
        if (example.image if seeing else None) in with_text:
            same += 1
        elif with_text:
            other_name[key].append(example)
    images = None
    if seeing:
        by_content = _same_contents(data, [(tests, trained[key].values()) for key, tests in other_name.items()])
        images = "names" if by_content is None else "contents"
        same += by_content or 0
    result = Overlap(splits=settings.trained_and_scored(), same=same, n=len(data.test), images=images)
    if result.splits:
        print(f"scored on the training split: {', '.join(result.splits)}")
    if result.same:
        print(f"overlap: {result.same:,} of {result.n:,} test examples are in training, too")
    return result


def _text_key(question: str, example: Example) -> tuple[str, ...]:
    second = () if example.text_pair is None else (example.text_pair,)
    return tuple(" ".join(text.casefold().split()) for text in (question, *second))


def _same_contents(data: LoadedData, by_text: Sequence[tuple[Sequence[Example], Iterable[Example]]]) -> int | None:
    """Number of test examples whose image has the content of a training image; None if there are too many to compare.

    ``by_text``: test and training examples with the same text.
    """
    images = {e.image_name: e for tests, trained in by_text for e in (*tests, *trained)}
    if (digests_of := getattr(data.source, "image_digests", None)) is not None:
        digests = dict(zip(images, digests_of(list(images)), strict=True))
    elif len(images) > _MAX_IMAGES:
        return None
    else:
        digests = {}
        for name, example in images.items():
            image = data.source.image(example)  # not through the cache, whose state affects the time of the training
            digests[name] = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).hexdigest()
    same = 0
    for tests, trained in by_text:
        contents = {digests[example.image_name] for example in trained}
        same += sum(digests[example.image_name] in contents for example in tests)
    return same

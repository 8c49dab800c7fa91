"""Subsets, the order of batches, prompts drawn from pools, the image cache and the thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from PIL import Image as Pillow

from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings
from bench.spec.cell import Cell
from bench.spec.sections import EvaluateSettings, OptimizerSettings, TrainSettings
from bench.tasks import generative_vqa
from bench.training.data import (
    Batch,
    LoadedData,
    evaluation_batches,
    load_data,
    prefetched,
    subset,
    task_of,
    training_batches,
)

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = [
    Example(question_id=str(i), image=f"{i % 3}.png", questions=(f"q{i}", f"Q{i}"), answer="yes") for i in range(10)
]


VQA = generative_vqa.create(
    generative_vqa.Settings(name="generative_vqa"), EvaluateSettings(batch_size=4, closed="yes_no"), EXAMPLES
)


class Source:
    """Counts how often an image is decoded."""

    def __init__(self) -> None:
        self.decoded = 0

    def split(self, name: str) -> Sequence[Example]:
        return {"a": EXAMPLES[:6], "b": EXAMPLES[6:], "none": []}[name]

    def image(self, _example: Example) -> Image:
        self.decoded += 1
        return Pillow.new("RGB", (4, 4))

    def texts(self) -> Sequence[str]:
        return []


class Asked:
    """A model that only notes which questions it is asked, and what it is told."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.answers: list[str] = []

    def collate(self, _images: Any, questions: Sequence[str], answers: Sequence[str]) -> dict[str, torch.Tensor]:
        self.questions += questions
        self.answers += answers
        return {}


def train_settings(*, shuffle: bool = True) -> TrainSettings:
    return TrainSettings(steps=3, batch_size=4, shuffle=shuffle, optimizer=OptimizerSettings(lr=1e-3))


def questions_asked(seed: int, steps: int = 8) -> list[str]:
    data = LoadedData(source=Source(), train=EXAMPLES, test=[])
    model = Asked()
    list(training_batches(data, cast(Any, model), VQA, train_settings(), steps=steps, seed=seed))
    return model.questions


def test_order_and_prompts_follow_the_seed_alone() -> None:
    first = questions_asked(1)
    torch.rand(7)
    assert questions_asked(1) == first
    assert questions_asked(2) != first
    assert {q[0] for q in first} == {"q", "Q"}, "prompts are drawn from the whole pool"


def test_an_epoch_visits_every_example_once_and_the_last_batch_may_be_smaller() -> None:
    data = LoadedData(source=Source(), train=EXAMPLES, test=[])
    model: Any = Asked()
    batches = [b for step in training_batches(data, model, VQA, train_settings(), steps=3, seed=0) for b in step]
    assert [len(b.examples) for b in batches] == [4, 4, 2]
    assert sorted(e.question_id for b in batches for e in b.examples) == sorted(e.question_id for e in EXAMPLES)


def test_micro_batches_of_a_step_never_reach_into_the_next_epoch() -> None:
    data = LoadedData(source=Source(), train=EXAMPLES, test=[])
    model: Any = Asked()
    settings = train_settings(shuffle=False).model_copy(update={"gradient_accumulation_steps": 2})
    steps = list(training_batches(data, model, VQA, settings, steps=4, seed=0))
    assert [[len(b.examples) for b in step] for step in steps] == [[4, 4], [2], [4, 4], [2]]
    first, second = steps[:2], steps[2:]
    assert [e for step in first for b in step for e in b.examples] == EXAMPLES
    assert [e for step in second for b in step for e in b.examples] == EXAMPLES


def test_a_curriculum_is_taken_in_its_own_order() -> None:
    data = LoadedData(source=Source(), train=EXAMPLES, test=[])
    model: Any = Asked()
    batches = training_batches(data, model, VQA, train_settings(shuffle=False), steps=3, seed=0)
    assert [e.question_id for step in batches for b in step for e in b.examples] == [e.question_id for e in EXAMPLES]


def test_evaluation_keeps_the_order_and_asks_the_first_prompt() -> None:
    data = LoadedData(source=Source(), train=[], test=EXAMPLES)
    model: Any = Asked()
    batches = list(evaluation_batches(data, model, VQA, batch_size=4))
    assert [e for b in batches for e in b.examples] == EXAMPLES
    assert model.questions == [f"q{i}" for i in range(10)]
    assert model.answers == [], "no answer reaches a model that is asked for it"
    assert all(not batch.tensors for batch in batches)


def test_an_image_is_decoded_once_while_memory_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded() -> int:
        source = Source()
        data = LoadedData(source=source, train=EXAMPLES, test=[])
        for example in EXAMPLES:
            data.image(example)
        return source.decoded

    assert decoded() == 3
    monkeypatch.setattr("bench.training.data._CACHE_BYTES", 48)  # one image of 4x4 pixels
    assert decoded() == 1 + 6


def test_subsets_are_drawn_by_their_seed_in_the_order_of_the_file() -> None:
    drawn = subset(EXAMPLES, 4, seed=0)
    ids = [int(e.question_id) for e in drawn]
    assert ids == sorted(ids)
    assert subset(EXAMPLES, 4, seed=0) == drawn
    assert any(subset(EXAMPLES, 4, seed=s) != drawn for s in range(1, 5))
    assert subset(EXAMPLES, 99, seed=0) == EXAMPLES


def test_splits_are_joined_and_an_empty_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @staticmethod
        def load(_settings: Any) -> Source:
            return Source()

    monkeypatch.setattr("bench.registry.load", lambda *_: Plugin)
    loaded = load_data(DataSettings(name="x", train_split="a+b", test_split="b"))
    assert (list(loaded.train), list(loaded.test)) == (EXAMPLES, EXAMPLES[6:])
    with pytest.raises(DataError, match="split 'none' has no examples"):
        load_data(DataSettings(name="x", train_split="none", test_split="b"))


def test_an_example_that_the_task_cannot_use_is_refused_wherever_it_stands(make_cell: Callable[..., Cell]) -> None:
    """Not after training, when its answer would be looked up, and not never, as a wrong prediction."""
    cell = make_cell(task={"name": "image_classification"})
    a, b, c = (Example(question_id=answer, image="0.png", answer=answer) for answer in ("a", "b", "c"))
    train = [a, b, a]
    data = LoadedData(source=Source(), train=train, test=[b, a], all_train=train)
    assert task_of(cell, data).facts.labels == ("a", "b")
    data.test = [b, a, c]
    with pytest.raises(DataError, match="'c' is no label of the task"):
        task_of(cell, data)
    data.test = [b, Example(question_id="d", questions=("?",), answer="a")]
    with pytest.raises(DataError, match="example d has no image"):
        task_of(cell, data)


def test_an_error_while_making_a_batch_arrives_and_the_thread_ends() -> None:
    def failing() -> Iterator[Batch]:
        yield Batch(examples=EXAMPLES[:1], tensors={})
        raise DataError("3.png: broken image")

    batches = prefetched(failing())
    assert next(batches).examples == EXAMPLES[:1]
    with pytest.raises(DataError, match="broken image"):
        next(batches)
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_the_embedded_data_set_loads(make_cell: Callable[..., Cell]) -> None:
    data = load_data(make_cell().data)
    assert (len(data.train), len(data.test)) == (40, 10)
    assert data.image(data.train[0]).size == (64, 64)

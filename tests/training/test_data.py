"""Subsets, the order of batches, prompts drawn from pools, the image cache and the thread; cuts and overlaps."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image as Pillow

from bench.datasets.common.images import open_folder
from bench.errors import DataError
from bench.plugins.contracts import CutTexts, Example, Task, TaskFacts
from bench.plugins.settings import DataSettings
from bench.records.record import CutCount, Overlap
from bench.spec.sections import EvaluateSettings, OptimizerSettings, TrainSettings
from bench.tasks import generative_vqa
from bench.training.data import (
    Batch,
    LoadedData,
    count_cut,
    evaluation_batches,
    load_data,
    overlap,
    prefetched,
    subset,
    task_of,
    training_batches,
)
from tests.training.conftest import Make

EXAMPLES = [
    Example(question_id=str(i), image=f"{i % 3}.png", questions=(f"q{i}", f"Q{i}"), answer="yes") for i in range(10)
]
VQA = generative_vqa.create(
    generative_vqa.Settings(name="generative_vqa"), EvaluateSettings(batch_size=4, closed="yes_no"), EXAMPLES
)


class Source:
    """An image of a name is of one colour: ``red/1`` and ``red/2`` are the same picture."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def split(self, name: str) -> Sequence[Example]:
        return {"a": EXAMPLES[:6], "b": EXAMPLES[6:], "none": []}[name]

    def image(self, example: Example) -> Any:
        self.decoded.append(example.image_name)
        colour, slash, _ = example.image_name.partition("/")
        return Pillow.new("RGB", (4, 4), colour if slash else "black")

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


def loaded(train: Sequence[Example], test: Sequence[Example], source: Any = None) -> LoadedData:
    return LoadedData(source=source or cast(Any, Source()), train=train, test=test)


def batches(
    steps: int, seed: int = 0, model: Any = None, *, shuffle: bool = True, accumulated: int = 1
) -> list[Sequence[Batch]]:
    asked: Any = model or Asked()
    settings = TrainSettings(
        steps=3,
        batch_size=4,
        shuffle=shuffle,
        gradient_accumulation_steps=accumulated,
        optimizer=OptimizerSettings(lr=1e-3),
    )
    return list(training_batches(loaded(EXAMPLES, []), asked, VQA, settings, steps=steps, seed=seed))


def examples_of(steps: Sequence[Sequence[Batch]]) -> list[Example]:
    return [example for step in steps for batch in step for example in batch.examples]


def questions_asked(seed: int) -> list[str]:
    model = Asked()
    batches(8, seed, model)
    return model.questions


def test_order_and_prompts_follow_the_seed_alone() -> None:
    first = questions_asked(1)
    torch.rand(7)
    assert questions_asked(1) == first
    assert questions_asked(2) != first
    assert {q[0] for q in first} == {"q", "Q"}, "prompts are drawn from the whole pool"


def test_an_epoch_visits_every_example_once_and_the_last_batch_may_be_smaller() -> None:
    steps = batches(3)
    assert [[len(b.examples) for b in step] for step in steps] == [[4], [4], [2]]
    assert sorted(e.question_id for e in examples_of(steps)) == sorted(e.question_id for e in EXAMPLES)
    assert examples_of(batches(3, shuffle=False)) == EXAMPLES, "a curriculum is taken in its own order"


def test_micro_batches_of_a_step_never_reach_into_the_next_epoch() -> None:
    steps = batches(4, shuffle=False, accumulated=2)
    assert [[len(b.examples) for b in step] for step in steps] == [[4, 4], [2], [4, 4], [2]]
    assert examples_of(steps) == EXAMPLES * 2


def test_evaluation_keeps_the_order_and_asks_the_first_prompt() -> None:
    model: Any = Asked()
    found = list(evaluation_batches(loaded([], EXAMPLES), model, VQA, batch_size=4))
    assert [e for b in found for e in b.examples] == EXAMPLES
    assert model.questions == [f"q{i}" for i in range(10)]
    assert model.answers == [], "no answer reaches a model that is asked for it"
    assert all(not batch.tensors for batch in found)


@pytest.mark.parametrize(("limit", "decoded"), [(2**20, 3), (48, 1 + 6)], ids=["all", "one image of 4x4 pixels"])
def test_an_image_is_decoded_once_while_memory_lasts(monkeypatch: pytest.MonkeyPatch, limit: int, decoded: int) -> None:
    monkeypatch.setattr("bench.training.data._CACHE_BYTES", limit)
    source = Source()
    data = loaded(EXAMPLES, [], source)
    for example in EXAMPLES:
        data.image(example)
    assert len(source.decoded) == decoded


def test_subsets_are_drawn_by_their_seed_in_the_order_of_the_file() -> None:
    drawn = subset(EXAMPLES, 4, seed=0)
    ids = [int(e.question_id) for e in drawn]
    assert ids == sorted(ids)
    assert subset(EXAMPLES, 4, seed=0) == drawn
    assert any(subset(EXAMPLES, 4, seed=s) != drawn for s in range(1, 5))
    assert subset(EXAMPLES, 99, seed=0) == EXAMPLES


def test_splits_are_joined_and_an_empty_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.registry.load", lambda *_: SimpleNamespace(load=lambda _: Source()))
    data = load_data(DataSettings(name="x", train_split="a+b", test_split="b"))
    assert (list(data.train), list(data.test)) == (EXAMPLES, EXAMPLES[6:])
    with pytest.raises(DataError, match="split 'none' has no examples"):
        load_data(DataSettings(name="x", train_split="none", test_split="b"))


def test_an_example_that_the_task_cannot_use_is_refused_wherever_it_stands(make_cell: Make) -> None:
    """Not after training, when its answer would be looked up, and not never, as a wrong prediction."""
    cell = make_cell(task={"name": "image_classification"})
    a, b, c = (Example(question_id=answer, image="0.png", answer=answer) for answer in ("a", "b", "c"))
    train = [a, b, a]
    data = LoadedData(source=cast(Any, Source()), train=train, test=[b, a], all_train=train)
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

    found = prefetched(failing())
    assert next(found).examples == EXAMPLES[:1]
    with pytest.raises(DataError, match="broken image"):
        next(found)
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


# --- texts that are cut, and test examples that training has, too --------------------------------------------------

SETTINGS = DataSettings(name="x")
IDS = itertools.count()


def task(*inputs: str, output: str = "label") -> Task:
    return cast(Task, SimpleNamespace(facts=TaskFacts(name="t", inputs=inputs, output=output)))  # type: ignore[arg-type]


def example(question: str = "", image: str | None = None, pair: str | None = None) -> Example:
    questions = (question,) if question else ()
    return Example(question_id=str(next(IDS)), questions=questions, image=image, text_pair=pair, answer="a")


def test_the_same_texts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    train = [example("Is it  red?"), example("a", pair="b")]
    test = [example("is it red?"), example("a"), example("a", pair="B"), example("a", pair="c")]
    assert overlap(loaded(train, test), task("text"), SETTINGS) == Overlap(same=2, n=4)
    assert "overlap: 2 of 4 test examples are in training, too" in capsys.readouterr().out


def test_images_are_the_same_by_name_or_content(monkeypatch: pytest.MonkeyPatch) -> None:
    train = [example(image="red/1"), example(image="blue/1")]
    test = [example(image="red/1"), example(image="blue/2"), example(image="green/1")]
    assert overlap(loaded(train, test), task("image"), SETTINGS) == Overlap(same=2, n=3, images="contents")
    monkeypatch.setattr("bench.training.data._MAX_IMAGES", 1)
    assert overlap(loaded(train, test), task("image"), SETTINGS) == Overlap(same=1, n=3, images="names")


def test_an_example_is_its_text_and_image_together() -> None:
    source = Source()
    train = [example("q", "red/1"), example("r", "blue/1")]
    test = [example("q", "red/2"), example("q", "blue/1"), example("s", "red/1")]
    data = loaded(train, test, source)
    assert overlap(data, task("image", "text"), SETTINGS) == Overlap(same=1, n=3, images="contents")
    assert set(source.decoded) == {"red/1", "red/2", "blue/1"}, "those whose text is the same"
    data.image(train[0])
    assert source.decoded.count("red/1") == 2, "a cache warmed here would shorten the training's waiting"


def test_files_are_compared_without_decoding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"other")
    source = open_folder({}, tmp_path, [], "")
    data = loaded([example(image="a")], [example(image="b"), example(image="c")], source)
    assert overlap(data, task("image"), SETTINGS) == Overlap(same=1, n=2, images="contents")


def test_many_images_are_compared_in_linear_time() -> None:
    """Each test image with each training image would be 400 million comparisons."""
    made = [Example(question_id=str(i), image=str(i), answer="a") for i in range(40_000)]
    source = SimpleNamespace(image_digests=lambda names: [str(int(name) % 30_000) for name in names])
    started = time.process_time()
    found = overlap(loaded(made[:20_000], made[20_000:], source), task("image"), SETTINGS)
    assert found == Overlap(same=10_000, n=20_000, images="contents")
    assert time.process_time() - started < 5


def test_a_split_that_is_trained_on_is_named() -> None:
    settings = DataSettings(name="x", train_split="train + extra", test_split="extra")
    data = loaded([example("a")], [example("b")])
    assert overlap(data, task("text"), settings) == Overlap(splits=["extra"], same=0, n=1)


def cutting(longest: int, **fields: Any) -> Any:
    def cut(questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> CutTexts:
        both = [question + second for question, second in zip(questions, pairs or [""] * len(questions), strict=True)]
        return CutTexts(
            questions=sum(len(text) > longest for text in both), answers=sum(len(text) > longest for text in answers)
        )

    return SimpleNamespace(cut_texts=cut, **fields)


def test_cut_texts_are_counted_by_split(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Example(question_id="p", questions=("long", "longer", "s"), answer="longest")
    data = loaded([pool, example("s")], [example("longer"), example("s")])
    assert count_cut(data, cutting(3), task("text", output="text")) == {
        "train_questions": CutCount(cut=2, n=4),
        "train_answers": CutCount(cut=1, n=2),
        "test_questions": CutCount(cut=1, n=2),
    }
    assert "cut: 2 of 4 train questions are longer than the model takes" in capsys.readouterr().out
    assert count_cut(data, cutting(3), task("image")) == {}
    assert count_cut(data, cast(Any, object()), task("text")) == {}


def test_pairs_are_for_models_that_read_them() -> None:
    data = loaded([example("ab", pair="cd")], [example("a", pair="b")])
    counts = count_cut(data, cutting(3, reads_pairs=True), task("text"))
    assert counts == {"train_questions": CutCount(cut=1, n=1), "test_questions": CutCount(cut=0, n=1)}
    with pytest.raises(DataError, match=r"reads one text, not pairs.*remove data\.columns\.text_pair"):
        count_cut(data, cutting(3), task("text"))

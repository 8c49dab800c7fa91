"""Texts that are cut, and test examples that training has, too, are counted before a cell trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image as Pillow

from bench.datasets.common.images import open_folder
from bench.errors import DataError
from bench.plugins.contracts import CutTexts, Example, Task, TaskFacts
from bench.plugins.settings import DataSettings
from bench.records.record import CutCount, Overlap
from bench.training import data as inputs
from bench.training.data import LoadedData

SETTINGS = DataSettings(name="x")


def task(*given: str, output: str = "label") -> Task:
    return cast(Task, SimpleNamespace(facts=TaskFacts(name="t", inputs=given, output=output)))  # type: ignore[arg-type]


def example(question: str = "", image: str | None = None, pair: str | None = None) -> Example:
    example.made += 1  # type: ignore[attr-defined]
    questions = (question,) if question else ()
    return Example(question_id=str(example.made), questions=questions, image=image, text_pair=pair, answer="a")  # type: ignore[attr-defined]


example.made = 0  # type: ignore[attr-defined]


class Colours:
    """An image of a name is of one colour: ``red/1`` and ``red/2`` are the same picture."""

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def image(self, example: Example) -> Any:
        self.decoded.append(example.image_name)
        return Pillow.new("RGB", (2, 2), example.image_name.partition("/")[0])


def overlap(given: Task, train: Sequence[Example], test: Sequence[Example], source: Any = None) -> Overlap:
    return inputs.overlap(LoadedData(source=source, train=train, test=test), given, SETTINGS)


def test_the_same_texts_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    train = [example("Is it  red?"), example("a", pair="b")]
    test = [example("is it red?"), example("a"), example("a", pair="B"), example("a", pair="c")]
    assert overlap(task("text"), train, test) == Overlap(same=2, n=4)
    assert "overlap: 2 of 4 test examples are in training, too" in capsys.readouterr().out


def test_images_are_the_same_by_name_or_content() -> None:
    source = Colours()
    train = [example(image="red/1"), example(image="blue/1")]
    test = [example(image="red/1"), example(image="blue/2"), example(image="green/1")]
    assert overlap(task("image"), train, test, source) == Overlap(same=2, n=3, images="contents")


def test_an_example_is_its_text_and_image_together() -> None:
    source = Colours()
    train = [example("q", "red/1"), example("r", "blue/1")]
    test = [example("q", "red/2"), example("q", "blue/1"), example("s", "red/1")]
    assert overlap(task("image", "text"), train, test, source) == Overlap(same=1, n=3, images="contents")
    assert set(source.decoded) == {"red/1", "red/2", "blue/1"}, "those whose text is the same"


def test_files_are_compared_without_decoding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    (tmp_path / "c").write_bytes(b"other")
    source = open_folder({}, tmp_path, [], "")
    found = overlap(task("image"), [example(image="a")], [example(image="b"), example(image="c")], source)
    assert found == Overlap(same=1, n=2, images="contents")


def test_too_many_images_are_compared_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_MOST_IMAGES", 1)
    train, test = [example(image="red/1")], [example(image="red/1"), example(image="red/2")]
    assert overlap(task("image"), train, test, Colours()) == Overlap(same=1, n=2, images="names")


def test_looking_for_the_same_images_warms_no_cache() -> None:
    """Else training would wait less for its images than it does in a cell whose overlap is known otherwise."""
    source = Colours()
    data = LoadedData(source=cast(Any, source), train=[example(image="red/1")], test=[example(image="red/2")])
    inputs.overlap(data, task("image"), SETTINGS)
    assert sorted(source.decoded) == ["red/1", "red/2"]
    data.image(data.train[0])
    assert source.decoded.count("red/1") == 2


def test_many_images_are_compared_in_linear_time() -> None:
    """Each test image with each training image would be 400 million comparisons."""
    made = [Example(question_id=str(i), image=str(i), answer="a") for i in range(40_000)]
    source = SimpleNamespace(image_digests=lambda names: [str(int(name) % 30_000) for name in names])
    started = time.process_time()
    found = overlap(task("image"), made[:20_000], made[20_000:], source)
    assert found == Overlap(same=10_000, n=20_000, images="contents")
    assert time.process_time() - started < 5


def test_a_split_that_is_trained_on_is_named() -> None:
    settings = DataSettings(name="x", train_split="train + extra", test_split="extra")
    data = LoadedData(source=cast(Any, None), train=[example("a")], test=[example("b")])
    assert inputs.overlap(data, task("text"), settings) == Overlap(splits=["extra"], same=0, n=1)


def cutting(longest: int, **fields: Any) -> Any:
    def cut(questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> CutTexts:
        both = [question + second for question, second in zip(questions, pairs or [""] * len(questions), strict=True)]
        return CutTexts(
            questions=sum(len(text) > longest for text in both), answers=sum(len(text) > longest for text in answers)
        )

    return SimpleNamespace(cut_texts=cut, **fields)


def test_cut_texts_are_counted_by_split(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Example(question_id="p", questions=("long", "longer", "s"), answer="longest")
    data = LoadedData(source=cast(Any, None), train=[pool, example("s")], test=[example("longer"), example("s")])
    assert inputs.count_cut(data, cutting(3), task("text", output="text")) == {
        "train_questions": CutCount(cut=2, n=4),
        "train_answers": CutCount(cut=1, n=2),
        "test_questions": CutCount(cut=1, n=2),
    }
    assert "cut: 2 of 4 train questions are longer than the model takes" in capsys.readouterr().out
    assert inputs.count_cut(data, cutting(3), task("image")) == {}
    assert inputs.count_cut(data, cast(Any, object()), task("text")) == {}


def test_pairs_are_for_models_that_read_them() -> None:
    data = LoadedData(source=cast(Any, None), train=[example("ab", pair="cd")], test=[example("a", pair="b")])
    found = inputs.count_cut(data, cutting(3, reads_pairs=True), task("text"))
    assert found == {"train_questions": CutCount(cut=1, n=1), "test_questions": CutCount(cut=0, n=1)}
    with pytest.raises(DataError, match=r"reads one text, not pairs.*remove data\.columns\.text_pair"):
        inputs.count_cut(data, cutting(3), task("text"))

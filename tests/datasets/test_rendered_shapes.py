"""Rendered shapes: the same for the same seed, as wide as promised, true texts, fast."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bench.datasets import easy_vqa, rendered_shapes
from bench.datasets.rendered_shapes import COLOURS, Scene
from bench.records.store import ResultsFile
from bench.spec.cell import expand
from bench.spec.load import read_spec


def settings(**changes: Any) -> rendered_shapes.Settings:
    return rendered_shapes.Settings(name="rendered_shapes", **changes)


def test_the_same_seed_gives_the_same_examples_and_pictures() -> None:
    one, two = rendered_shapes.load(settings()), rendered_shapes.load(settings())
    other = rendered_shapes.load(settings(seed=1))
    train = one.split("train")
    assert list(train[5:9]) == [two.split("train")[index] for index in range(5, 9)]
    assert train[-1].question_id == "train-999999"
    assert one.image(train[7]).tobytes() == two.image(two.split("train")[7]).tobytes()
    assert one.image(train[7]).tobytes() != other.image(other.split("train")[7]).tobytes()
    assert one.image(train[7]).tobytes() != one.image(one.split("test")[7]).tobytes()
    with pytest.raises(IndexError):
        train[1_000_000]


def test_digest_follows_settings_and_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rendered_shapes.digest(settings())
    assert rendered_shapes.digest(settings(seed=1)) != before
    for name, value in (("LIGHT", (0.3, 0.7)), ("COLOURS", {"red": (200, 0, 0), "blue": (0, 0, 9)})):
        with monkeypatch.context() as patch:
            patch.setattr(rendered_shapes, name, value)
            assert rendered_shapes.digest(settings()) != before


def test_texts_are_true() -> None:
    data = rendered_shapes.load(settings())
    split = data.split("train")
    assert isinstance(split, rendered_shapes.Rendered)
    answers: Counter[str] = Counter()
    for index in range(3_000):
        example, scene = split[index], split.scene(index)
        prompt, words = example.question(), set(example.question().split())
        named = words & {*COLOURS, *rendered_shapes.SHAPES} & {scene.colour, scene.shape}
        answers[example.answer] += 1
        if example.answer in ("yes", "no"):
            denied = bool(words & {"not", "no"})
            assert bool(named) == ((example.answer == "yes") != denied), prompt
            assert example.answer_type == "closed"
        else:
            assert example.answer in (scene.colour, scene.shape, f"a {scene.colour} {scene.shape}"), prompt
            assert example.answer not in words
    assert answers["yes"] / (answers["yes"] + answers["no"]) == pytest.approx(0.5, abs=0.05)


def test_stages_follow_one_another_and_hold_only_their_tasks() -> None:
    stages = [{"share": 1, "tasks": {"colour": 1}}, {"share": 3, "tasks": {"shape": 1}}]
    data = rendered_shapes.load(settings(size=400, stages=stages))
    answers = [example.answer for example in data.split("train")]
    assert set(answers[:100]) == set(COLOURS)
    assert set(answers[100:]) == set(rendered_shapes.SHAPES)
    assert {example.answer for example in data.split("test")[:100]} == set(rendered_shapes.SHAPES)


def test_unbalanced_statements_have_a_language_prior() -> None:
    stages = [{"share": 1, "tasks": {"match_colour": 1, "deny_colour": 1}, "balanced": False}]
    examples = rendered_shapes.load(settings(stages=stages)).split("train")[:2_000]
    said_no = [e.answer for e in examples if not {"not", "no"} & set(e.question().split())]
    denied = [e.answer for e in examples if {"not", "no"} & set(e.question().split())]
    assert said_no.count("no") / len(said_no) == pytest.approx(7 / 8, abs=0.03)
    assert denied.count("yes") / len(denied) == pytest.approx(7 / 8, abs=0.03)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"share": 0, "tasks": {"colour": 1}}],
        *([{"share": 1, "tasks": tasks}] for tasks in ({}, {"colour": 0}, {"colour": -1}, {"taste": 1})),
    ],
)
def test_impossible_stages_are_refused(stages: list[Any]) -> None:
    with pytest.raises(ValidationError):
        settings(stages=stages)


@pytest.mark.parametrize(("shape", "share"), [("circle", np.pi / 4), ("rectangle", 0.75), ("triangle", 0.433)])
def test_pictures_show_the_scene(shape: str, share: float) -> None:
    height = 30.0 if shape == "rectangle" else 40.0
    colours: dict[str, Any] = {"colour": "red", "background": (50.0, 60.0, 70.0), "foreground": (255.0, 0.0, 0.0)}
    scene = Scene(shape=shape, width=40.0, height=height, x=30.0, y=34.0, light=0.5, **colours)
    pixels = np.asarray(rendered_shapes.render(scene))
    assert pixels.shape == (64, 64, 3)
    light = scene.light
    assert tuple(pixels[0, 0]) == tuple(int(level * light) for level in (50, 60, 70))
    assert tuple(pixels[34, 30]) == (int(255 * light), 0, 0)
    inside = (pixels[..., 0] / light - 50) / 205
    assert inside.sum() == pytest.approx(share * 40 * 40, rel=0.02)


def test_shapes_lie_inside_and_stand_out() -> None:
    for seed in range(500):
        scene = rendered_shapes.draw_scene(random.Random(seed))
        for centre, length in ((scene.x, scene.width), (scene.y, scene.height)):
            assert length / 2 <= centre <= 64 - length / 2
        difference = sum(abs(a - b) for a, b in zip(scene.foreground, scene.background, strict=True))
        assert difference >= rendered_shapes.CONTRAST


def test_texts_cover_every_prompt_and_answer() -> None:
    tasks = dict.fromkeys(rendered_shapes.PROMPTS, 1)
    data = rendered_shapes.load(settings(stages=[{"share": 1, "tasks": tasks}]))
    used = {text for example in data.split("train")[:3_000] for text in (example.question(), example.answer)}
    assert used <= set(data.texts())


def test_no_prompt_is_a_question_of_the_embedded_data_set_but_its_answers_are_all_said() -> None:
    embedded = easy_vqa.load(easy_vqa.Settings(name="easy_vqa"))
    examples = [*embedded.split("train"), *embedded.split("test")]
    texts = set(rendered_shapes.load(settings()).texts())
    questions = {example.question() for example in examples}
    assert not {text.replace(" ?", "?") for text in texts} & questions
    assert {example.answer for example in examples} <= texts


@pytest.mark.benchmark
def test_an_example_with_its_picture_takes_a_millisecond() -> None:
    data = rendered_shapes.load(settings())
    data.image(data.split("train")[0])
    started = time.perf_counter()
    for example in data.split("train")[:500]:
        data.image(example)
    assert time.perf_counter() - started < 500 * 0.005


def test_the_pictures_of_the_bundled_model_are_known_by_the_digest_of_its_record(root: Path) -> None:
    (cell,) = expand(read_spec(root / "specs" / "demo_backbone.yaml").resolve("default"))
    (record,) = ResultsFile(root / "results" / "gallery" / "demo_backbone" / "default.jsonl").read().values()
    assert isinstance(cell.data, rendered_shapes.Settings)
    assert rendered_shapes.digest(cell.data) == record.data_digest

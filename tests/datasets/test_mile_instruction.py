"""Instruction-format questions: pools, what is evaluated, test questions kept out of training."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import mile_instruction
from bench.errors import DataError
from tests.datasets.conftest import picture, pool, write_json


@pytest.fixture
def root(instructions: Path) -> Path:
    return instructions


def settings(root: Path, **changes: Any) -> mile_instruction.Settings:
    return mile_instruction.Settings(name="mile_instruction", root=root, **changes)


def test_what_is_evaluated_must_be_said(root: Path) -> None:
    with pytest.raises(ValueError, match="evaluate_on"):
        settings(root)


def test_held_out_images(root: Path) -> None:
    data = mile_instruction.load(settings(root, evaluate_on="held_out"))
    train, test = data.split("train"), data.split("test")
    assert len(train) + len(test) == 4
    assert not {e.image for e in train} & {e.image for e in test}
    example = (*train, *test)[0]
    assert example.question() == example.questions[0]
    assert {example.question(random.Random(n)) for n in range(20)} == set(example.questions)


def test_test_questions_are_dropped_from_training_unless_asked_for(root: Path) -> None:
    data = mile_instruction.load(settings(root, evaluate_on="vqa_rad", test_root=root / "rad"))
    assert [e.question_id for e in data.split("train")] == ["50", "51", "53"]
    assert [e.question() for e in data.split("test")] == ["What is shown?", "Is it red?"]
    assert data.image(data.split("test")[1]).size == data.image(data.split("train")[0]).size == (12, 8)
    leaky = mile_instruction.load(settings(root, evaluate_on="vqa_rad", test_root=root / "rad", allow_leaky=True))
    assert len(leaky.split("train")) == 4
    assert "Heart lungs" in data.texts()


@pytest.fixture
def both(root: Path, slake_root: Path) -> Path:
    """Instruction data of both sets, whose qids overlap; record 53 asks SLAKE's test question under the other name."""
    rows = [
        {"img_name": f"slake/slake_{image}.png", "qid": 50 + image, "answer": "Yes", "question_pool": pool(question)}
        for image, question in ((3, "is it green"), (1, "Is it green?"), (0, "Is it big?"))
    ]
    records = json.loads((root / "RAD_instruction_data.json").read_text())
    write_json(root / "instruction_data.json", [*records, *rows])
    (root / "image" / "slake").symlink_to(slake_root / "imgs")
    return root


def test_slakes_test_questions_are_known_by_both_names_of_an_image(both: Path, slake_root: Path) -> None:
    data = mile_instruction.load(settings(both, evaluate_on="slake", test_root=slake_root, follow_links=True))
    train = data.split("train")
    assert [e.question_id for e in train if "slake" in str(e.image)] == ["slake-51", "slake-50"]
    assert {e.question_id for e in train} >= {"vqa-rad-50", "vqa-rad-51", "vqa-rad-52", "vqa-rad-53"}
    assert data.notes() == ["1 of 7 records ask test questions and were left out of training"]
    leaky = mile_instruction.load(settings(both, evaluate_on="slake", test_root=slake_root, allow_leaky=True))
    assert len(leaky.split("train")) == 7


def test_slakes_images_are_found_under_either_name_behind_a_link(both: Path, slake_root: Path) -> None:
    chosen = settings(both, evaluate_on="slake", test_root=slake_root)
    behind = [e for e in mile_instruction.load(chosen).split("train") if "slake" in str(e.image)]
    with pytest.raises(DataError, match=r"link that leads out.*`data\.follow_links: true`"):
        mile_instruction.load(chosen).image(behind[0])
    data = mile_instruction.load(chosen.model_copy(update={"follow_links": True}))
    for example in behind:
        assert data.image(example).size == (12, 8)
    (both / "image" / "slake").unlink()
    picture(both / "image" / "slake" / "slake_1.png", size=(5, 5))
    data = mile_instruction.load(chosen)
    (renamed,) = [e for e in data.split("train") if e.image == "train:slake/slake_1.png"]
    assert data.image(renamed).size == (5, 5)


@pytest.mark.parametrize("name", ["slake/slake_007.png", "slake_7.png", "xmlab7/source.jpg", "slake/xmlab7/source.jpg"])
def test_every_name_of_a_slake_image_is_found_under_the_one_that_is_there(root: Path, name: str) -> None:
    row = {"img_name": name, "qid": 1, "answer": "no", "question_pool": pool("Is it?")}
    write_json(root / "instruction_data.json", [row])
    for stored in ("xmlab7/source.jpg", "slake_7.png"):
        picture(root / "image" / "slake" / stored, size=(5, 5))
        data = mile_instruction.load(settings(root, evaluate_on="held_out"))
        (example,) = (*data.split("train"), *data.split("test"))
        assert data.image(example).size == (5, 5)
        shutil.rmtree(root / "image" / "slake")


def test_a_name_that_is_none_of_slakes_is_refused_where_it_matters(root: Path, slake_root: Path) -> None:
    row = {"img_name": "slake/other_1.png", "qid": 1, "answer": "no", "question_pool": pool("Is it?")}
    write_json(root / "instruction_data.json", [row])
    with pytest.raises(DataError, match=r"'slake/other_1\.png' is no name of a SLAKE image.*allow_leaky"):
        mile_instruction.load(settings(root, evaluate_on="slake", test_root=slake_root))
    data = mile_instruction.load(settings(root, evaluate_on="slake", test_root=slake_root, allow_leaky=True))
    assert (len(data.split("train")), len(data.split("test"))) == (1, 1)


@pytest.mark.parametrize("broken", [[], "text", [1, None], None])
def test_broken_pool_names_the_record(root: Path, broken: object) -> None:
    row = {"img_name": "vqa-rad/synpic0.jpg", "qid": 9, "answer": "no", "question_pool": broken}
    write_json(root / "instruction_data.json", [row])
    with pytest.raises(DataError, match=r"record 0 \(qid 9\): column 'question_pool': must be"):
        mile_instruction.load(settings(root, evaluate_on="held_out"))

"""What every data set keeps, whatever it reads: digest, splits, ids, images, texts, and errors with a remedy."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.datasets.common import dataset
from bench.datasets.common.dataset import DataSet
from bench.errors import DataError
from bench.plugins.settings import DataSettings
from tests import factories
from tests.datasets.conftest import (
    make_instructions,
    make_pets,
    make_rad,
    make_rad_hub,
    make_slake,
    make_slake_hub,
    offline,  # noqa: F401 - a fixture
    write,
    write_parquet,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set small enough to be read whole (or its first examples), and what its errors must say."""

    settings: Callable[[Path], dict[str, Any]]
    """Fields beside ``name``, for data made below a folder."""
    absent: dict[str, Any] | None = None
    """Fields that name data which are not there; null: the data ship in a package."""
    remedy: str = "--scale demo"
    disjoint: bool = False
    """Whether no image, or text where there is none, may be in both splits."""


def _table(folder: Path) -> dict[str, Any]:
    lines = [f"{n},text {n // 2},{'pos' if n % 3 else 'neg'}\n" for n in range(60)]
    path = write(folder / "a.csv", "id,review,mood\n" + "".join(lines))
    return {"file": path, "test_share": 0.3, "columns": {"text": "review", "label": "mood", "id": "id"}}


def _hub(folder: Path) -> dict[str, Any]:
    columns = {"review": [f"text {n // 2}" for n in range(40)], "mood": ["a", "b"] * 20}
    write_parquet(folder, columns, None, "train")
    return {"id": str(folder), "columns": {"text": "review", "label": "mood"}, "test_share": 0.2}


TABLE_COLUMNS = {"columns": {"text": "t", "label": "y"}}
CASES = {
    "digits": Case(settings=lambda _: {}, remedy="pip install", disjoint=True),
    "easy_vqa": Case(settings=lambda _: {}, remedy="pip install", disjoint=True),
    "rendered_shapes": Case(settings=lambda _: {"size": 2_000}, disjoint=True),
    "image_folder": Case(
        settings=lambda folder: {"root": make_pets(folder) / "train", "test_share": 0.4, "test_seed": 1},
        absent={"root": "absent"},
        remedy="--set data.root=FOLDER",
        disjoint=True,
    ),
    "table": Case(
        settings=_table, absent={"files": {"train": "absent", "test": "absent"}, **TABLE_COLUMNS},
        remedy="working directory", disjoint=True,
    ),
    "vqa_rad": Case(settings=lambda folder: {"root": make_rad(folder)}, absent={"root": "absent"}),
    "slake": Case(
        settings=lambda folder: {"root": make_slake(folder), "language": "all"}, absent={"root": "absent"},
        disjoint=True,
    ),
    "mile_instruction": Case(
        settings=lambda folder: {
            "root": make_instructions(folder), "evaluate_on": "vqa_rad", "test_root": folder / "rad"
        },
        absent={"root": "absent", "evaluate_on": "held_out"},
    ),
    "hub": Case(settings=_hub, absent={"id": "./absent", **TABLE_COLUMNS}, remedy="data.id=FOLDER", disjoint=True),
    "slake_hub": Case(
        settings=lambda folder: {"id": str(make_slake_hub(folder))}, absent={"id": "./absent"}, disjoint=True
    ),
    "vqa_rad_hub": Case(settings=lambda folder: {"id": str(make_rad_hub(folder))}, absent={"id": "./absent"}),
}  # fmt: skip
HUB = ("hub", "slake_hub", "vqa_rad_hub")


def test_every_data_set_has_a_case() -> None:
    outside = {"counting"}
    assert set(CASES) == set(registry.names("datasets")) - outside


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param in HUB:
        request.getfixturevalue("offline")
    return str(request.param)


@pytest.fixture
def settings(name: str, tmp_path: Path) -> DataSettings:
    found: DataSettings = factories.plugin("datasets", name).Settings(
        name=name, **CASES[name].settings(tmp_path / "data")
    )
    return found


@pytest.fixture
def data(name: str, settings: DataSettings) -> DataSet:
    found: DataSet = factories.plugin("datasets", name).load(settings)
    return found


def test_the_digest_is_a_stable_sha256_of_what_is_loaded(name: str, settings: DataSettings, data: DataSet) -> None:
    digest = factories.plugin("datasets", name).digest(settings)
    assert len(bytes.fromhex(digest)) == 32
    assert factories.plugin("datasets", name).digest(settings) == digest == data.digest()


def test_settings_are_fields_not_methods(settings: DataSettings) -> None:
    assert type(settings).model_validate(settings.model_dump()) == settings


def test_splits_have_examples_with_unique_ids_answers_and_inputs(data: DataSet) -> None:
    for split in ("train", "test"):
        examples = data.split(split)
        ids = [example.question_id for example in examples]
        assert len(ids) == len(set(ids)) > 0
        assert all(example.image is not None or example.questions for example in examples)
        assert {type(example.answer) for example in examples} == {str}
    with pytest.raises(DataError, match=r"unknown split 'tset'; did you mean 'test'\? \(known: .*test"):
        data.split("tset")


def test_a_split_without_common_images_keeps_them_apart(name: str, data: DataSet) -> None:
    shown = [{e.image or e.questions for e in data.split(split)} for split in ("train", "test")]
    assert shown[0].isdisjoint(shown[1]) or not CASES[name].disjoint


def test_images_are_rgb_and_their_digests_follow_their_names(data: DataSet) -> None:
    examples = [example for example in data.split("test")[:3] if example.image is not None]
    assert {data.image(example).mode for example in examples} <= {"RGB"}
    if data.image_digests is not None and examples:
        names = [example.image_name for example in examples]
        digests = data.image_digests(names)
        assert data.image_digests(names[::-1]) == digests[::-1]
        assert {len(bytes.fromhex(digest)) for digest in digests} == {32}


def test_texts_are_sorted_and_hold_questions_and_answers(data: DataSet) -> None:
    texts = data.texts()
    assert list(texts) == sorted(set(texts))
    for split in ("train", "test"):
        for example in data.split(split)[:200]:
            assert {*example.questions, example.answer} <= set(texts)


def test_notes_are_sentences_of_the_record(data: DataSet) -> None:
    assert all(note and not note.endswith(".") for note in data.notes())


def test_absent_data_name_the_place_and_the_remedy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, plugin = CASES[name], factories.plugin("datasets", name)
    monkeypatch.chdir(tmp_path)
    if name == "rendered_shapes":
        return  # nothing can be absent
    if case.absent is None:
        monkeypatch.setattr(dataset, "find_spec", lambda _name: None)
    settings = plugin.Settings(name=name, **(case.absent or {}))
    for function in (plugin.digest, plugin.load):
        with pytest.raises(DataError) as raised:
            function(settings)
        assert case.remedy in str(raised.value)
        assert "absent" in str(raised.value) or case.absent is None


@pytest.mark.parametrize("name", HUB)
def test_an_absent_extra_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    plugin = factories.plugin("datasets", name)
    with pytest.raises(DataError, match=r"\[hub\]"):
        plugin.digest(plugin.Settings(name=name, **{"id": "a/b"} | (TABLE_COLUMNS if name == "hub" else {})))


def _change(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Yes", b"yEs") if path.suffix == ".json" else content[:-9] + b"x" + content[-8:])
    assert hashlib.sha256(path.read_bytes()) != hashlib.sha256(content)


@pytest.mark.parametrize("name", ["vqa_rad", "slake", "mile_instruction", "image_folder"])
def test_the_digest_follows_annotations_images_and_their_names(name: str, tmp_path: Path) -> None:
    plugin = factories.plugin("datasets", name)
    settings = plugin.Settings(name=name, **CASES[name].settings(tmp_path / "data"))
    digests = [plugin.digest(settings)]
    for path in sorted(settings.root.rglob("*.jp*g"))[:1] + sorted((tmp_path / "data").rglob("*.json")):
        _change(path)
        digests.append(plugin.digest(settings))
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    fields = settings.model_dump() | {
        field: moved / value.relative_to(tmp_path / "data")
        for field, value in settings.model_dump().items()
        if isinstance(value, Path)
    }
    assert plugin.digest(plugin.Settings(**fields)) == digests[-1]
    assert len(set(digests)) > 1

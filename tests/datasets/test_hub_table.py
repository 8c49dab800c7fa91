"""Any data set in the Hub's layouts, read from local folders by the real ``datasets`` library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import hub
from bench.errors import DataError
from tests.datasets.test_hub import _cache, jpeg  # noqa: F401 - the fixture keeps the library offline

datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")

PAIRS: dict[str, Any] = {
    "premise": ["It rains.", "It snows.", "?"],
    "hypothesis": ["It is wet.", "It is hot.", "?"],
    "label": [0, 1, -1],
}


def settings(root: Path, **changes: Any) -> hub.Settings:
    columns = changes.pop("columns", {"text": "{premise} [SEP] {hypothesis}", "label": "label"})
    return hub.Settings(name="hub", id=str(root), columns=columns, **changes)


def write(folder: Path, columns: dict[str, Any], features: dict[str, Any], splits: tuple[str, ...]) -> Path:
    """As the Hub holds them: ``data/<split>-00000-of-00001.parquet``."""
    for split in splits:
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    text = datasets.Value("string")
    names = datasets.ClassLabel(names=["entailed", "contradicted"])
    features = {"premise": text, "hypothesis": text, "label": names}
    return write(tmp_path / "pairs", PAIRS, features, ("train", "validation"))


def test_class_labels_give_names_and_minus_one_is_no_label(pairs: Path) -> None:
    data = hub.load(settings(pairs, test_split="validation", missing="drop"))
    assert [(e.question_id, e.image, e.questions, e.answer) for e in data.split("validation")] == [
        ("0", None, ("It rains. [SEP] It is wet.",), "entailed"),
        ("1", None, ("It snows. [SEP] It is hot.",), "contradicted"),
    ]
    with pytest.raises(DataError, match=r"pairs \(train\): record 2: column 'label': is empty.*missing: drop"):
        hub.load(settings(pairs, test_split="validation"))


def test_images_and_nested_answers(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "picture": [{"bytes": jpeg(200), "path": None}, {"bytes": jpeg(200), "path": None}],
        "question": ["is it red?", "is it blue?"],
        "answers": [{"text": ["yes", "y"]}, {"text": ["no"]}],
    }
    features = {
        "picture": datasets.Image(),
        "question": datasets.Value("string"),
        "answers": {"text": [datasets.Value("string")]},
    }
    root = write(tmp_path / "vqa", columns, features, ("train", "test"))
    described = settings(root, columns={"image": "picture", "text": "question", "answer": "answers.text"})
    data = hub.load(described)
    first, second = data.split("test")
    assert (first.answer, second.answer) == ("yes", "no")
    assert first.image == second.image
    assert data.image(first).getpixel((0, 0))[0] == pytest.approx(200, abs=3)  # type: ignore[index]
    assert hub.digest(described) == data.digest() == hub.digest(described)
    columns["picture"][1] = {"bytes": b"no image", "path": None}
    broken = hub.load(
        described.model_copy(update={"id": str(write(tmp_path / "b", columns, features, ("train", "test")))})
    )
    assert broken.digest() != data.digest()
    with pytest.raises(DataError, match=r"b \(train\): record 1 \(question 1\): cannot be read as an image"):
        broken.image(broken.split("test")[1])


def test_the_library_s_own_image_folder(tmp_path: Path) -> None:
    for split, name, level in (("train", "cat", 0), ("train", "dog", 250), ("test", "cat", 0), ("test", "dog", 250)):
        folder = tmp_path / "pets" / split / name
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes(jpeg(level))
    data = hub.load(settings(tmp_path / "pets", columns={"image": "image", "label": "label"}))
    assert [e.answer for e in data.split("test")] == ["cat", "dog"]
    assert data.image(data.split("test")[1]).getpixel((0, 0))[0] == pytest.approx(250, abs=3)  # type: ignore[index]


def test_a_configuration_is_chosen_and_asked_for(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for split in ("train", "test"):
            (tmp_path / "d" / name / f"{split}.csv").write_text(f"text,kind\n{name},a\n")
    lines = [
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {name}/{split}.csv\n" for split in ("train", "test"))
        for name in ("one", "two")
    ]
    (tmp_path / "d" / "README.md").write_text("---\nconfigs:\n" + "".join(lines) + "---\n")
    columns = {"text": "text", "label": "kind"}
    data = hub.load(settings(tmp_path / "d", configuration="two", columns=columns))
    assert [e.question() for e in data.split("test")] == ["two"]
    for wrong in (None, "three"):
        with pytest.raises(DataError, match=r"cannot be loaded: (?s:.*)two"):
            hub.load(settings(tmp_path / "d", configuration=wrong, columns=columns))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, r"there is no split 'test'.*validation.*data\.train_split"),
        ({"columns": {"text": "premis", "label": "label"}}, r"no column 'premis'; did you mean 'premise'\?"),
        ({"columns": {"image": "imag", "label": "label"}}, r"\(train\): there is no column 'imag'"),
        ({"columns": {"image": "premise", "label": "label"}}, r"column 'premise' holds no images, but Value"),
    ],
)
def test_wrong_names_get_the_nearest_ones(pairs: Path, changes: dict[str, Any], expected: str) -> None:
    split = {"test_split": "validation"} if changes else {}
    with pytest.raises(DataError, match=expected):
        hub.load(settings(pairs, **split, **changes))


def test_an_empty_image(tmp_path: Path) -> None:
    root = write(
        tmp_path / "d", {"image": [None], "y": ["a"]}, {"image": datasets.Image(), "y": datasets.Value("string")},
        ("train", "test"),
    )  # fmt: skip
    columns = {"image": "image", "label": "y"}
    with pytest.raises(DataError, match=r"record 0: column 'image': is empty"):
        hub.load(settings(root, columns=columns))


def test_absent_data_and_absent_extra_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"(?s)cannot be loaded.*--set data\.id=FOLDER$"):
        hub.digest(settings(tmp_path / "absent"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"\[hub\]"):
        hub.digest(settings(tmp_path))

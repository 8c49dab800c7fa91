"""Any data set in the Hub's layouts, read from local folders by the real ``datasets`` library."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.datasets import hub
from bench.datasets.common.hub import HubTables
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
    assert data.image_digests is not None
    assert data.image_digests([first.image_name]) == [hashlib.sha256(jpeg(200)).hexdigest()]
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
    with pytest.raises(
        DataError, match=r"several configurations: one, two; choose one, e\.g\. `data\.configuration: one`$"
    ):
        hub.load(settings(tmp_path / "d", columns=columns))
    with pytest.raises(DataError, match=r"no configuration 'twoo'; did you mean 'two'\?.*correct data\.configuration$"):
        hub.load(settings(tmp_path / "d", configuration="twoo", columns=columns))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, r"there is no split 'test'.*validation.*data\.train_split"),
        ({"columns": {"text": "premis", "label": "label"}}, r"no column 'premis'; did you mean 'premise'\?"),
        ({"columns": {"image": "imag", "label": "label"}}, r"\(train\): there is no column 'imag'"),
        (
            {"columns": {"image": "premise", "label": "label"}},
            r"record 0: column 'premise': holds texts; .*table",
        ),
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


TEXT = datasets.Value("string")
LABELLED = {"text": "text", "label": "label"}


def test_each_split_s_own_names_of_the_classes_count(tmp_path: Path) -> None:
    for split, names in (("train", ["neg", "pos"]), ("test", ["pos", "neg"])):
        columns = {"text": ["good", "bad"], "label": [names.index("pos"), names.index("neg")]}
        write(tmp_path / "d", columns, {"text": TEXT, "label": datasets.ClassLabel(names=names)}, (split,))
    data = hub.load(settings(tmp_path / "d", columns=LABELLED))
    for split in ("train", "test"):
        assert [(e.question(), e.answer) for e in data.split(split)] == [("good", "pos"), ("bad", "neg")]


def test_files_of_one_split_that_disagree_are_refused(tmp_path: Path) -> None:
    for shard, names in enumerate((["neg", "pos"], ["pos", "neg"])):
        columns = {"text": ["good"], "label": [0]}
        table = datasets.Dataset.from_dict(
            columns, features=datasets.Features({"text": TEXT, "label": datasets.ClassLabel(names=names)})
        )
        table.to_parquet(tmp_path / "d" / "data" / f"train-0000{shard}-of-00002.parquet")
    with pytest.raises(DataError, match=r"'label': classes are neg, pos in .*, but pos, neg in .*same names"):
        hub.load(settings(tmp_path / "d", columns=LABELLED, test_split="train"))


def test_classes_in_nested_columns_have_names(tmp_path: Path) -> None:
    features = {"text": TEXT, "all": {"mood": datasets.ClassLabel(names=["neg", "pos"])}}
    features["many"] = datasets.List(datasets.ClassLabel(names=["a", "b"]))
    columns = {"text": ["good"], "all": [{"mood": 1}], "many": [[0, 1]]}
    root = write(tmp_path / "d", columns, features, ("train", "test"))
    for label, expected in (("all.mood", "pos"), ("many.-1", "b")):
        data = hub.load(settings(root, columns={"text": "text", "label": label}))
        assert data.split("test")[0].answer == expected


def pictures(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number * 8))
    return folder


IMAGES = {"image": "image", "label": "label"}


def test_images_that_the_library_would_lose_are_refused(tmp_path: Path) -> None:
    names = [f"{kind}/{name}.jpg" for kind in ("cat", "dog") for name in [*map(str, range(12)), "train", "test it"]]
    root = pictures(tmp_path / "pets", names)
    with pytest.raises(
        DataError, match=r"24 of 28 files are in no split, e\.g\. cat/0\.jpg: .*`data\.data_files: \{train:"
    ):
        hub.load(settings(root, columns=IMAGES))
    data = hub.load(settings(root, columns=IMAGES, data_files={"train": ["cat/*", "dog/*"]}, test_share=0.25))
    assert [len(data.split(split)) for split in ("train", "test")] == [20, 8]
    assert data.notes() == []


def test_files_that_are_read_into_no_row_are_told(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", [f"{s}/{k}/{n}.jpg" for s in ("train", "test") for k in "ab" for n in range(2)])
    assert hub.load(settings(root, columns=IMAGES)).notes() == []
    (root / "test" / "a" / "2").write_bytes(jpeg(9))
    data = hub.load(settings(root, columns=IMAGES))
    assert len(data.split("test")) == 4
    assert data.notes() == ["1 of 9 files are in no split and were not read (e.g. test/a/2)"]
    tables = tmp_path / "tables"
    for name in ("train", "test", "more"):
        (tables / f"{name}.csv").parent.mkdir(exist_ok=True)
        (tables / f"{name}.csv").write_text("text,label\na,b\n")
    assert hub.load(settings(tables, columns=LABELLED)).notes() == [
        "1 of 3 files are in no split and were not read (e.g. more.csv)"
    ]


def test_only_mapped_columns_are_read(tmp_path: Path) -> None:
    features = {"text": TEXT, "label": TEXT, "picture": datasets.Image(), "sound": {"bytes": datasets.Value("binary")}}
    columns = {
        **{"text": ["a"], "label": ["b"], "picture": [{"bytes": b"no image", "path": None}]},
        "sound": [{"bytes": b"no sound"}],
    }
    root = tmp_path / "d"
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        table = table.cast_column("sound", datasets.Audio())  # needs a package that is not here to be decoded
        table.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    assert hub.load(settings(root, columns=LABELLED)).split("test")[0].question() == "a"
    with pytest.raises(DataError, match=r"record 0: column 'sound': must be text, found fields"):
        hub.load(settings(root, columns={"text": "sound", "label": "label"}))


@pytest.mark.parametrize("column", ["struct", "plain", "listed", "images", "structs", "several.1", "nested.picture"])
def test_images_in_every_shape(tmp_path: Path, column: str) -> None:
    raw, binary = jpeg(200), datasets.Value("binary")
    struct = {"bytes": binary, "path": TEXT}
    stored = {"bytes": raw, "path": None}
    features: dict[str, Any] = {
        **{"label": TEXT, "struct": struct, "plain": binary, "listed": datasets.List(binary)},
        **{"images": datasets.List(datasets.Image()), "structs": datasets.List(struct)},
        **{"several": datasets.List(datasets.Image()), "nested": {"picture": datasets.Image()}},
    }
    columns: dict[str, Any] = {
        **{"label": ["a"], "struct": [stored], "plain": [raw], "listed": [[raw]], "images": [[stored]]},
        **{
            "structs": [[stored]],
            "several": [[{"bytes": jpeg(0), "path": None}, stored]],
            "nested": [{"picture": stored}],
        },
    }
    root = write(tmp_path / "d", columns, features, ("train", "test"))
    data = hub.load(settings(root, columns={"image": column, "label": "label"}))
    assert data.image(data.split("test")[0]).getpixel((0, 0))[0] == pytest.approx(200, abs=3)  # type: ignore[index]
    if column == "several.1":
        with pytest.raises(
            DataError, match=r"record 0: column 'several': holds 2 images; .*`data\.columns\.image: several\.0`"
        ):
            hub.load(settings(root, columns={"image": "several", "label": "label"}))


def test_a_path_beside_the_table_is_an_image_and_none_out_of_it(tmp_path: Path) -> None:
    struct = {"bytes": datasets.Value("binary"), "path": TEXT}
    paths = [{"bytes": None, "path": path} for path in ("img/1.jpg", "../secret.jpg")]
    root = write(tmp_path / "d", {"i": paths[:1], "y": ["a"]}, {"i": struct, "y": TEXT}, ("train", "test"))
    pictures(root, ["img/1.jpg"])
    chosen = {"columns": {"image": "i", "label": "y"}, "data_files": {"train": "data/train*", "test": "data/test*"}}
    data = hub.load(settings(root, **chosen))
    assert data.image(data.split("test")[0]).size == (10, 6)
    pictures(tmp_path, ["secret.jpg"])
    write(root, {"i": paths[1:], "y": ["a"]}, {"i": struct, "y": TEXT}, ("train", "test"))
    with pytest.raises(DataError, match="leads out of the image folder"):
        hub.load(settings(root, **chosen))


def test_a_share_of_the_only_split_is_drawn_by_class_and_content(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 10 + [2]
    columns = {"text": [f"text {n // 2}" for n in range(51)], "label": labels}
    features = {"text": TEXT, "label": datasets.ClassLabel(names=["common", "rare", "single"])}
    root = write(tmp_path / "d", columns, features, ("train",))
    with pytest.raises(DataError, match=r"no split 'test'.*set `data\.test_share: 0\.2`"):
        hub.load(settings(root, columns=LABELLED))

    def drawn(**changes: Any) -> tuple[list[str], list[str]]:
        data = hub.load(settings(root, columns=LABELLED, test_share=0.2, **changes))
        train, test = data.split("train"), data.split("test")
        assert len(train) + len(test) == 51
        assert not {e.question() for e in train} & {e.question() for e in test}
        assert len({e.question_id for e in (*train, *test)}) == 51
        return [e.answer for e in test], [e.question() for e in test]

    answers, questions = drawn()
    assert (answers.count("common"), answers.count("rare"), answers.count("single")) == (8, 2, 0)
    assert drawn() == (answers, questions)
    assert drawn(test_seed=1)[1] != questions
    both = write(tmp_path / "both", columns, features, ("train", "test"))
    with pytest.raises(DataError, match=r"has a split 'test'; remove data\.test_share"):
        hub.load(settings(both, columns=LABELLED, test_share=0.2))
    data = hub.load(settings(both, columns=LABELLED, test_share=0.2, test_split="held_out"))
    assert len(data.split("held_out")) == 10
    for wrong in ({"test_seed": 1}, {"test_share": 0.2, "train_split": "train+x"}):
        with pytest.raises(ValidationError, match="test_s"):
            settings(root, columns=LABELLED, **wrong)


def test_data_are_read_once_for_a_cell_and_again_when_they_change(tmp_path: Path, monkeypatch: Any) -> None:
    features = {"text": TEXT, "label": TEXT}
    root = write(tmp_path / "d", {"text": ["a"], "label": ["b"]}, features, ("train", "test"))
    loads = []

    class Counted(HubTables):
        def __init__(self, *given: Any, **named: Any) -> None:
            loads.append(given)
            super().__init__(*given, **named)

    monkeypatch.setattr(hub, "HubTables", Counted)
    chosen = settings(root, columns=LABELLED)
    assert hub.load(chosen).digest() == hub.digest(chosen)
    assert len(loads) == 1
    before = hub.digest(chosen)
    write(root, {"text": ["other"], "label": ["b"]}, features, ("train", "test"))
    assert hub.load(chosen).split("test")[0].question() == "other"
    assert hub.digest(chosen) != before
    assert len(loads) == 2


def test_one_table_saved_to_disk_is_a_training_split(tmp_path: Path) -> None:
    columns = {"text": [f"text {n}" for n in range(10)], "label": ["a", "b"] * 5}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "d")
    data = hub.load(settings(tmp_path / "d", columns=LABELLED, test_share=0.2))
    assert (len(data.split("train")), len(data.split("test"))) == (8, 2)

"""Any data set in the Hub's layouts, read from local folders by the real ``datasets`` library."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.datasets import hub
from bench.datasets.common.hub import HubTables
from bench.errors import DataError
from tests.datasets.conftest import jpeg, write, write_parquet

datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")
pytestmark = pytest.mark.usefixtures("offline")

TEXT, BINARY = datasets.Value("string"), datasets.Value("binary")
LABELLED = {"text": "text", "label": "label"}
IMAGES = {"image": "image", "label": "label"}


def settings(root: Path, **changes: Any) -> hub.Settings:
    return hub.Settings(name="hub", id=str(root), columns=changes.pop("columns", LABELLED), **changes)


def labels(*names: str) -> Any:
    return datasets.ClassLabel(names=list(names))


def stored(level: int) -> dict[str, Any]:
    return {"bytes": jpeg(level), "path": None}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    columns = {
        "premise": ["It rains.", "It snows.", "?"],
        "hypothesis": ["It is wet.", "It is hot.", "?"],
        "label": [0, 1, -1],
    }
    features = {"premise": TEXT, "hypothesis": TEXT, "label": labels("entailed", "contradicted")}
    return write_parquet(tmp_path / "pairs", columns, features, "train", "validation")


PAIRED = {"text": "{premise} [SEP] {hypothesis}", "label": "label"}


def test_class_labels_give_names_and_minus_one_is_no_label(pairs: Path) -> None:
    data = hub.load(settings(pairs, columns=PAIRED, test_split="validation", missing="drop"))
    assert [(e.question_id, e.image, e.questions, e.answer) for e in data.split("validation")] == [
        ("0", None, ("It rains. [SEP] It is wet.",), "entailed"),
        ("1", None, ("It snows. [SEP] It is hot.",), "contradicted"),
    ]
    with pytest.raises(DataError, match=r"pairs \(train\): record 2: column 'label': is empty.*missing: drop"):
        hub.load(settings(pairs, columns=PAIRED, test_split="validation"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"columns": PAIRED, "test_split": "test"}, r"there is no split 'test'.*validation.*data\.train_split"),
        ({"columns": {"text": "premis", "label": "label"}}, r"no column 'premis'; did you mean 'premise'\?"),
        ({"columns": {"image": "imag", "label": "label"}}, r"\(train\): there is no column 'imag'"),
        ({"columns": {"image": "premise", "label": "label"}}, r"record 0: column 'premise': holds texts; .*table"),
    ],
)
def test_wrong_names_get_the_nearest_ones(pairs: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        hub.load(settings(pairs, **{"test_split": "validation", **changes}))


def test_images_and_nested_answers(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "picture": [stored(200), stored(200)],
        "question": ["is it red?", "is it blue?"],
        "answers": [{"text": ["yes", "y"]}, {"text": ["no"]}],
    }
    features = {"picture": datasets.Image(), "question": TEXT, "answers": {"text": [TEXT]}}
    described = {"image": "picture", "text": "question", "answer": "answers.text"}
    data = hub.load(settings(write_parquet(tmp_path / "vqa", columns, features), columns=described))
    first, second = data.split("test")
    assert (first.answer, second.answer, first.image) == ("yes", "no", second.image)
    assert data.image_digests is not None
    assert data.image_digests([first.image_name]) == [hashlib.sha256(jpeg(200)).hexdigest()]
    assert data.image(first).getpixel((0, 0))[0] == pytest.approx(200, abs=3)  # type: ignore[index]
    columns["picture"][1] = {"bytes": b"no image", "path": None}
    broken = hub.load(settings(write_parquet(tmp_path / "b", columns, features), columns=described))
    assert broken.digest() != data.digest()
    with pytest.raises(DataError, match=r"b \(train\): record 1 \(question 1\): cannot be read as an image"):
        broken.image(broken.split("test")[1])


def test_an_empty_image(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "d", {"image": [None], "label": ["a"]}, {"image": datasets.Image(), "label": TEXT})
    with pytest.raises(DataError, match=r"record 0: column 'image': is empty"):
        hub.load(settings(root, columns=IMAGES))


def test_a_configuration_is_chosen_and_asked_for(tmp_path: Path) -> None:
    readme = "---\nconfigs:\n"
    for name in ("one", "two"):
        readme += f"- config_name: {name}\n  data_files:\n"
        for split in ("train", "test"):
            write(tmp_path / "d" / name / f"{split}.csv", f"text,label\n{name},a\n")
            readme += f"  - split: {split}\n    path: {name}/{split}.csv\n"
    write(tmp_path / "d" / "README.md", f"{readme}---\n")
    data = hub.load(settings(tmp_path / "d", configuration="two"))
    assert [e.question() for e in data.split("test")] == ["two"]
    for chosen in (None, "twoo"):
        with pytest.raises(DataError, match=r"(?s)cannot be loaded.*'one', 'two'.*--set data\.configuration=NAME"):
            hub.load(settings(tmp_path / "d", configuration=chosen))


def test_each_split_s_own_names_of_the_classes_count(tmp_path: Path) -> None:
    for split, names in (("train", ["neg", "pos"]), ("test", ["pos", "neg"])):
        columns = {"text": ["good", "bad"], "label": [names.index("pos"), names.index("neg")]}
        write_parquet(tmp_path / "d", columns, {"text": TEXT, "label": labels(*names)}, split)
    data = hub.load(settings(tmp_path / "d"))
    for split in ("train", "test"):
        assert [(e.question(), e.answer) for e in data.split(split)] == [("good", "pos"), ("bad", "neg")]


def test_files_of_one_split_that_disagree_are_refused(tmp_path: Path) -> None:
    for shard, names in enumerate((["neg", "pos"], ["pos", "neg"])):
        features = datasets.Features({"text": TEXT, "label": labels(*names)})
        table = datasets.Dataset.from_dict({"text": ["good"], "label": [0]}, features=features)
        table.to_parquet(tmp_path / "d" / "data" / f"train-0000{shard}-of-00002.parquet")
    with pytest.raises(DataError, match=r"'label': classes are neg, pos in .*, but pos, neg in .*same names"):
        hub.load(settings(tmp_path / "d", test_split="train"))


def test_classes_in_nested_columns_have_names(tmp_path: Path) -> None:
    features = {"text": TEXT, "all": {"mood": labels("neg", "pos")}, "many": datasets.List(labels("a", "b"))}
    root = write_parquet(tmp_path / "d", {"text": ["good"], "all": [{"mood": 1}], "many": [[0, 1]]}, features)
    for label, expected in (("all.mood", "pos"), ("many.-1", "b")):
        data = hub.load(settings(root, columns={"text": "text", "label": label}))
        assert data.split("test")[0].answer == expected


def pictures(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        write(folder / name, jpeg(number * 8))
    return folder


def test_images_that_the_library_would_lose_are_refused(tmp_path: Path) -> None:
    names = [f"{kind}/{name}.jpg" for kind in ("cat", "dog") for name in [*map(str, range(12)), "train", "test it"]]
    root = pictures(tmp_path / "pets", names)
    lost = r"24 of 28 files are in no split, e\.g\. cat/0\.jpg: .*`data\.data_files: \{train:"
    with pytest.raises(DataError, match=lost):
        hub.load(settings(root, columns=IMAGES))
    data = hub.load(settings(root, columns=IMAGES, data_files={"train": ["cat/*", "dog/*"]}, test_share=0.25))
    assert [len(data.split(split)) for split in ("train", "test")] == [20, 8]
    assert data.notes() == []


def test_files_that_are_read_into_no_row_are_noted(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", [f"{s}/{k}/{n}.jpg" for s in ("train", "test") for k in "ab" for n in range(2)])
    data = hub.load(settings(root, columns=IMAGES))
    assert ([e.answer for e in data.split("test")], data.notes()) == (["a", "a", "b", "b"], [])
    write(root / "test" / "a" / "2", jpeg(9))
    data = hub.load(settings(root, columns=IMAGES))
    assert len(data.split("test")) == 4
    assert data.notes() == ["1 of 9 files are in no split and were not read (e.g. test/a/2)"]
    for name in ("train", "test", "more"):
        write(tmp_path / "tables" / f"{name}.csv", "text,label\na,b\n")
    noted = hub.load(settings(tmp_path / "tables")).notes()
    assert noted == ["1 of 3 files are in no split and were not read (e.g. more.csv)"]


def test_only_mapped_columns_are_read(tmp_path: Path) -> None:
    features = {"text": TEXT, "label": TEXT, "picture": datasets.Image(), "sound": {"bytes": BINARY}}
    columns = {"text": ["a"], "label": ["b"], "picture": [{"bytes": b"no image", "path": None}]}
    table = datasets.Dataset.from_dict({**columns, "sound": [{"bytes": b"no sound"}]}, datasets.Features(features))
    table = table.cast_column("sound", datasets.Audio())  # decoding needs a package that is not here
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "d" / "data" / f"{split}-00000-of-00001.parquet")
    assert hub.load(settings(tmp_path / "d")).split("test")[0].question() == "a"
    with pytest.raises(DataError, match=r"record 0: column 'sound': must be text, found fields"):
        hub.load(settings(tmp_path / "d", columns={"text": "sound", "label": "label"}))


STRUCT = {"bytes": BINARY, "path": TEXT}
SHAPES: dict[str, tuple[Any, Any]] = {
    "struct": (STRUCT, stored(200)),
    "plain": (BINARY, jpeg(200)),
    "listed": (datasets.List(BINARY), [jpeg(200)]),
    "images": (datasets.List(datasets.Image()), [stored(200)]),
    "structs": (datasets.List(STRUCT), [stored(200)]),
    "several.1": (datasets.List(datasets.Image()), [stored(0), stored(200)]),
    "nested.picture": ({"picture": datasets.Image()}, {"picture": stored(200)}),
}


@pytest.mark.parametrize("column", SHAPES)
def test_images_in_every_shape(tmp_path: Path, column: str) -> None:
    feature, value = SHAPES[column]
    name = column.partition(".")[0]
    root = write_parquet(tmp_path / "d", {"label": ["a"], name: [value]}, {"label": TEXT, name: feature})
    data = hub.load(settings(root, columns={"image": column, "label": "label"}))
    assert data.image(data.split("test")[0]).getpixel((0, 0))[0] == pytest.approx(200, abs=3)  # type: ignore[index]
    if name == "several":
        advice = r"record 0: column 'several': holds 2 images; .*`data\.columns\.image: several\.0`"
        with pytest.raises(DataError, match=advice):
            hub.load(settings(root, columns={"image": "several", "label": "label"}))


def test_a_path_beside_the_table_is_an_image_and_none_out_of_it(tmp_path: Path) -> None:
    chosen = {"columns": IMAGES, "data_files": {"train": "data/train*", "test": "data/test*"}}

    def with_path(path: str) -> hub.Settings:
        columns = {"image": [{"bytes": None, "path": path}], "label": ["a"]}
        return settings(write_parquet(tmp_path / "d", columns, {"image": STRUCT, "label": TEXT}), **chosen)

    pictures(tmp_path, ["d/img/1.jpg", "secret.jpg"])
    data = hub.load(with_path("img/1.jpg"))
    assert data.image(data.split("test")[0]).size == (10, 6)
    with pytest.raises(DataError, match="leads out of the image folder"):
        hub.load(with_path("../secret.jpg"))


def test_a_share_of_the_only_split_is_drawn_by_class_and_content(tmp_path: Path) -> None:
    columns = {"text": [f"text {n // 2}" for n in range(51)], "label": [0] * 40 + [1] * 10 + [2]}
    features = {"text": TEXT, "label": labels("common", "rare", "single")}
    root = write_parquet(tmp_path / "d", columns, features, "train")
    with pytest.raises(DataError, match=r"no split 'test'.*set `data\.test_share: 0\.2`"):
        hub.load(settings(root))

    def drawn(**changes: Any) -> tuple[list[str], list[str]]:
        data = hub.load(settings(root, test_share=0.2, **changes))
        train, test = data.split("train"), data.split("test")
        assert not {e.question() for e in train} & {e.question() for e in test}
        assert len({e.question_id for e in (*train, *test)}) == len(train) + len(test) == 51
        return [e.answer for e in test], [e.question() for e in test]

    answers, questions = drawn()
    assert (answers.count("common"), answers.count("rare"), answers.count("single")) == (8, 2, 0)
    assert drawn() == (answers, questions)
    assert drawn(test_seed=1)[1] != questions
    both = write_parquet(tmp_path / "both", columns, features)
    with pytest.raises(DataError, match=r"has a split 'test'; remove data\.test_share"):
        hub.load(settings(both, test_share=0.2))
    assert len(hub.load(settings(both, test_share=0.2, test_split="held_out")).split("held_out")) == 10


@pytest.mark.parametrize("wrong", [{"test_seed": 1}, {"test_share": 0.2, "train_split": "train+x"}])
def test_a_share_that_contradicts_the_splits_is_refused_with_the_spec(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="test_s"):
        settings(Path("d"), **wrong)


def test_data_are_read_once_for_a_cell_and_again_when_they_change(tmp_path: Path, monkeypatch: Any) -> None:
    root = write_parquet(tmp_path / "d", {"text": ["a"], "label": ["b"]})
    loads = []

    class Counted(HubTables):
        def __init__(self, *given: Any, **named: Any) -> None:
            loads.append(given)
            super().__init__(*given, **named)

    monkeypatch.setattr(hub, "HubTables", Counted)
    before = hub.load(settings(root)).digest()
    assert hub.digest(settings(root)) == before
    assert len(loads) == 1
    write_parquet(root, {"text": ["other"], "label": ["b"]})
    assert hub.load(settings(root)).split("test")[0].question() == "other"
    assert hub.digest(settings(root)) != before
    assert len(loads) == 2


def test_one_table_saved_to_disk_is_a_training_split(tmp_path: Path) -> None:
    columns = {"text": [f"text {n}" for n in range(10)], "label": ["a", "b"] * 5}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "d")
    data = hub.load(settings(tmp_path / "d", test_share=0.2))
    assert (len(data.split("train")), len(data.split("test"))) == (8, 2)

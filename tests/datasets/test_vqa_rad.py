"""VQA-RAD: the published files' oddities, the two splits, the leaky copy, and the Hub's table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import vqa_rad, vqa_rad_hub
from bench.errors import DataError
from tests.datasets.conftest import jpeg, picture, rad, write, write_json, write_parquet


def settings(root: Path, **changes: Any) -> vqa_rad.Settings:
    return vqa_rad.Settings(name="vqa_rad", root=root, **changes)


def test_oddities_of_the_public_file(rad_root: Path) -> None:
    data = vqa_rad.load(settings(rad_root))
    train, test = data.split("train"), data.split("test")
    assert [[e.question_id for e in split] for split in (train, test)] == [["0", "1", "2"], ["3", "4"]]
    assert (train[0].answer_type, train[1].question(), train[2].answer) == ("closed", "Is the liver visible?", "12")
    assert test[0].answer == "Heart lungs"
    assert data.image(train[2]).getpixel((0, 0))[0] == pytest.approx(120, abs=3)  # type: ignore[index]


def test_train_and_test_files_read_like_the_public_one(rad_root: Path, tmp_path: Path) -> None:
    public = json.loads((rad_root / vqa_rad.PUBLIC).read_text())
    root = tmp_path / "cut"
    shutil.copytree(rad_root / "images", root / "VQA_RAD Image Folder")
    write_json(root / "trainset.json", public[:3])
    write(root / "test.jsol", "\n".join(json.dumps(record) for record in public[3:]))
    cut, whole = vqa_rad.load(settings(root)), vqa_rad.load(settings(rad_root))
    for split in ("train", "test"):
        assert cut.split(split) == whole.split(split)


def test_image_split_shares_no_image_loses_no_question_and_stays_when_images_are_added(rad_root: Path) -> None:
    records = [rad(n, f"synpic{n // 2}.jpg", "Is it?", "yes", "Closed") for n in range(2000)]
    tests = []
    for count in (1000, 2000):
        write_json(rad_root / vqa_rad.PUBLIC, records[:count])
        data = vqa_rad.load(settings(rad_root, split_by="image"))
        train, test = data.split("train"), data.split("test")
        assert not {e.image for e in train} & {e.image for e in test}
        assert len(train) + len(test) == count
        tests.append([e.image for e in test])
    assert 340 <= len(tests[1]) <= 460
    assert tests[0] == tests[1][: len(tests[0])]


def leaky(root: Path, rows: int, *, repeat_test: bool) -> Path:
    picture(root / "images" / "a.jpg")
    train = [rad(n, "a.jpg", f"train {n}?", "yes", "CLOSED") for n in range(rows)]
    if repeat_test:
        train[0]["question"] = "TEST  3"
    write_json(root / "trainset.json", train)
    write_json(root / "testset.json", [rad(n, "a.jpg", f"test {n}?", "yes", "CLOSED") for n in range(20)])
    return root


@pytest.mark.parametrize(("rows", "repeat_test"), [(3064, False), (50, True)])
def test_leaky_train_file_is_refused_unless_asked_for(tmp_path: Path, rows: int, repeat_test: bool) -> None:
    root = leaky(tmp_path, rows, repeat_test=repeat_test)
    for function in (vqa_rad.load, vqa_rad.digest):
        with pytest.raises(DataError, match=r"trainset\.json.*leaks(.|\n)*allow_leaky: true"):
            function(settings(root))
    assert len(vqa_rad.load(settings(root, allow_leaky=True)).split("train")) == rows


def test_other_train_files_are_not_taken_for_the_leaky_one(tmp_path: Path) -> None:
    assert len(vqa_rad.load(settings(leaky(tmp_path, 3063, repeat_test=False))).split("train")) == 3063


def test_what_is_missing_is_named_with_the_layout(tmp_path: Path) -> None:
    for root in (picture(tmp_path / "no_json" / "images" / "a.jpg").parents[1], tmp_path):
        with pytest.raises(DataError) as raised:
            vqa_rad.digest(settings(root))
        for part in (str(root), "https://osf.io/89kps/", "trainset.json", "images/synpic", "--scale demo", "data.root"):
            assert part in str(raised.value)


def test_missing_images_are_counted_before_anything_runs(rad_root: Path) -> None:
    (rad_root / "images" / "synpic2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images are missing; the first is .*synpic2\.jpg\n(.|\n)*osf\.io"):
        vqa_rad.digest(settings(rad_root))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"answer_type": "MAYBE"}, "column 'answer_type': must be open or closed, found 'maybe'"),
        ({"question": None}, "column 'question': is empty"),
        ({"question": " \t"}, "column 'question': is empty"),
        ({"answer": ["yes"]}, "column 'answer': must be text"),
        ({"answer": True}, "column 'answer': must be text"),
    ],
)
def test_broken_record_names_file_record_and_qid(rad_root: Path, record: dict[str, Any], expected: str) -> None:
    whole = rad(5, "synpic0.jpg", "Is it?", "yes", "CLOSED")
    path = write_json(rad_root / vqa_rad.PUBLIC, [{**whole, **record}])
    with pytest.raises(DataError, match=rf"{path}: record 0 \(qid 5\): {expected}"):
        vqa_rad.load(settings(rad_root))


def test_rows_that_are_no_objects_and_doubled_ids_are_refused(rad_root: Path) -> None:
    row = rad(5, "synpic0.jpg", "Is it?", "yes", "CLOSED")
    for second, expected in ((["no record"], "record 1: must be an object"), ({**row, "qid": "5"}, "'5' is also the")):
        write_json(rad_root / vqa_rad.PUBLIC, [row, second])
        with pytest.raises(DataError, match=expected):
            vqa_rad.load(settings(rad_root))


def test_hostile_image_name_is_refused_by_digest_and_image(rad_root: Path) -> None:
    write_json(rad_root / vqa_rad.PUBLIC, [rad(5, "../../secret.jpg", "Is it?", "yes", "CLOSED")])
    data = vqa_rad.load(settings(rad_root))
    for function in (data.digest, lambda: data.image(data.split("train")[0])):
        with pytest.raises(DataError, match="leads out"):
            function()


@pytest.mark.parametrize("root", ["public", "cut"])
def test_the_real_data_set(shared_data: Path, tmp_path: Path, root: str) -> None:
    folder = shared_data / "vqa_rad"
    if root == "cut":
        for name in ("trainset.json", "testset.json"):
            shutil.copy(folder / name, tmp_path)
        (tmp_path / "images").symlink_to(folder / "images")
        folder = tmp_path
    data = vqa_rad.load(settings(folder))
    train, test = data.split("train"), data.split("test")
    closed = [sum(e.answer_type == "closed" for e in split) for split in (train, test)]
    assert (len(train), len(test), closed) == (1797, 451, [1027, 272])
    assert len({e.image for e in test} - {e.image for e in train}) == 1
    assert len(data.digest()) == 64
    assert data.image(test[0]).mode == "RGB"
    by_image = vqa_rad.load(settings(folder, split_by="image"))
    assert [len(by_image.split(split)) for split in ("train", "test")] == [1812, 436]


# --- the Hub's table -------------------------------------------------------------------------------------------


def from_hub(root: Path, **changes: Any) -> vqa_rad_hub.Settings:
    return vqa_rad_hub.Settings(name="vqa_rad_hub", id=str(root), **changes)


@pytest.mark.usefixtures("offline")
def test_equal_images_of_the_hub_have_one_name(rad_hub_root: Path) -> None:
    data = vqa_rad_hub.load(from_hub(rad_hub_root))
    train = data.split("train")
    assert [(e.question(), e.answer, e.answer_type) for e in train] == [
        ("is it red?", "yes", None),
        ("is it blue?", "no", None),
        ("what is it?", "lung", None),
    ]
    assert train[0].image == train[1].image != train[2].image
    assert data.image(train[2]).getpixel((0, 0))[0] == pytest.approx(50, abs=3)  # type: ignore[index]


@pytest.mark.usefixtures("offline")
def test_a_broken_image_a_missing_column_and_a_leak_of_the_hub(tmp_path: Path) -> None:
    broken = {"image": [{"bytes": b"no image", "path": None}], "question": ["is it?"], "answer": ["yes"]}
    data = vqa_rad_hub.load(from_hub(write_parquet(tmp_path / "broken", broken), allow_leaky=True))
    with pytest.raises(DataError, match=r"\(train\): record 0 \(question train-0\): cannot be read as an image"):
        data.image(data.split("train")[0])
    columns = {"question": ["is it?"], "answer": ["yes"]}
    with pytest.raises(DataError, match=r"\(train\): record 0: .* the row has no 'image'"):
        vqa_rad_hub.load(from_hub(write_parquet(tmp_path / "columns", columns)))
    leak = {"image": [{"bytes": jpeg(90), "path": None}], "question": ["What is this"], "answer": ["chest"]}
    root = write_parquet(tmp_path / "leak", leak)
    with pytest.raises(DataError, match="allow_leaky"):
        vqa_rad_hub.digest(from_hub(root))
    assert len(vqa_rad_hub.load(from_hub(root, allow_leaky=True)).split("train")) == 1

"""VQA-RAD: the published files' oddities, the two splits, the leaky copy, missing parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import vqa_rad
from bench.errors import DataError
from tests.datasets.conftest import picture, rad, write_json


def settings(root: Path, **changes: Any) -> vqa_rad.Settings:
    return vqa_rad.Settings(name="vqa_rad", root=root, **changes)


def test_oddities_of_the_public_file(rad_root: Path) -> None:
    data = vqa_rad.load(settings(rad_root))
    train, test = data.split("train"), data.split("test")
    assert [e.question_id for e in train] == ["0", "1", "2"]
    assert [e.question_id for e in test] == ["3", "4"]
    assert train[0].answer_type == "closed"
    assert train[1].question() == "Is the liver visible?"
    assert train[2].answer == "12"
    assert test[0].answer == "Heart lungs"
    assert data.image(train[2]).getpixel((0, 0))[0] == pytest.approx(120, abs=3)  # type: ignore[index]
    assert "12" in data.texts()


def test_train_and_test_files_read_like_the_public_one(rad_root: Path, tmp_path: Path) -> None:
    public = json.loads((rad_root / vqa_rad.PUBLIC).read_text())
    root = tmp_path / "cut"
    shutil.copytree(rad_root / "images", root / "VQA_RAD Image Folder")
    write_json(root / "trainset.json", public[:3])
    (root / "test.jsol").write_text("\n".join(json.dumps(record) for record in public[3:]))
    cut, whole = vqa_rad.load(settings(root)), vqa_rad.load(settings(rad_root))
    for split in ("train", "test"):
        assert cut.split(split) == whole.split(split)


def test_image_split_shares_no_image_and_loses_no_question(rad_root: Path) -> None:
    data = vqa_rad.load(settings(rad_root, split_by="image"))
    train, test = data.split("train"), data.split("test")
    assert not {e.image for e in train} & {e.image for e in test}
    assert sorted(e.question_id for e in (*train, *test)) == ["0", "1", "2", "3", "4"]


def test_a_fifth_of_the_images_is_for_testing_whatever_else_is_there(rad_root: Path) -> None:
    records = [rad(n, f"synpic{n}.jpg", "Is it?", "yes", "Closed") for n in range(1000)]
    tests = []
    for count in (500, 1000):
        write_json(rad_root / vqa_rad.PUBLIC, records[:count])
        tests.append([e.image for e in vqa_rad.load(settings(rad_root, split_by="image")).split("test")])
    assert 170 <= len(tests[1]) <= 230
    assert tests[0] == tests[1][: len(tests[0])]


def leaky(root: Path, rows: int, *, repeat_test: bool) -> Path:
    picture(root / "images" / "a.jpg")
    test = [rad(n, "a.jpg", f"test {n}?", "yes", "CLOSED") for n in range(20)]
    train = [rad(n, "a.jpg", f"train {n}?", "yes", "CLOSED") for n in range(rows)]
    if repeat_test:
        train[0]["question"] = "TEST  3"
    write_json(root / "trainset.json", train)
    write_json(root / "testset.json", test)
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


def test_missing_data_says_where_to_get_it_what_is_expected_and_what_runs_without(tmp_path: Path) -> None:
    for root in (tmp_path / "absent", picture(tmp_path / "no_json" / "images" / "a.jpg").parents[1], tmp_path):
        with pytest.raises(DataError) as raised:
            vqa_rad.digest(settings(root))
        message = str(raised.value)
        for part in (str(root), "https://osf.io/89kps/", "trainset.json", "images/synpic", "--scale demo", "data.root"):
            assert part in message


def test_missing_images_are_counted_before_anything_runs(rad_root: Path) -> None:
    (rad_root / "images" / "synpic2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images are missing; the first is .*synpic2\.jpg\n(.|\n)*osf\.io"):
        vqa_rad.digest(settings(rad_root))


def test_digest_follows_annotations_and_images(rad_root: Path) -> None:
    first = vqa_rad.digest(settings(rad_root))
    assert vqa_rad.digest(settings(rad_root)) == first
    picture(rad_root / "images" / "synpic1.jpg", size=(40, 40))
    second = vqa_rad.digest(settings(rad_root))
    path = rad_root / vqa_rad.PUBLIC
    path.write_text(path.read_text().replace("Yes", "yes"))
    assert len({first, second, vqa_rad.digest(settings(rad_root))}) == 3


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"answer_type": "MAYBE"}, r"record 0 \(qid 5\): column 'answer_type': must be open or closed, found 'maybe'"),
        ({"question": None}, r"record 0 \(qid 5\): column 'question': is empty"),
        ({"question": " \t"}, r"record 0 \(qid 5\): column 'question': is empty"),
        ({"answer": ["yes"]}, r"record 0 \(qid 5\): column 'answer': must be text"),
        ({"answer": True}, r"record 0 \(qid 5\): column 'answer': must be text"),
    ],
)
def test_broken_record_names_file_record_and_qid(rad_root: Path, record: dict[str, Any], expected: str) -> None:
    whole = rad(5, "synpic0.jpg", "Is it?", "yes", "CLOSED")
    path = write_json(rad_root / vqa_rad.PUBLIC, [{**whole, **record}])
    with pytest.raises(DataError, match=rf"{path}: {expected}"):
        vqa_rad.load(settings(rad_root))


def test_rows_that_are_no_objects_and_doubled_ids_are_refused(rad_root: Path) -> None:
    row = rad(5, "synpic0.jpg", "Is it?", "yes", "CLOSED")
    write_json(rad_root / vqa_rad.PUBLIC, [row, ["not", "a", "record"]])
    with pytest.raises(DataError, match="record 1: must be an object"):
        vqa_rad.load(settings(rad_root))
    write_json(rad_root / vqa_rad.PUBLIC, [row, {**row, "qid": "5"}])
    with pytest.raises(DataError, match="'5' is also the id at"):
        vqa_rad.load(settings(rad_root))


def test_hostile_image_name_is_refused_by_digest_and_image(rad_root: Path) -> None:
    write_json(rad_root / vqa_rad.PUBLIC, [rad(5, "../../secret.jpg", "Is it?", "yes", "CLOSED")])
    with pytest.raises(DataError, match="leads out"):
        vqa_rad.digest(settings(rad_root))
    data = vqa_rad.load(settings(rad_root))
    with pytest.raises(DataError, match="leads out"):
        data.image(data.split("train")[0])


def test_unknown_split_names_the_known_ones(rad_root: Path) -> None:
    with pytest.raises(DataError, match=r"unknown split 'tset'; did you mean 'test'\? \(known: train, test\)"):
        vqa_rad.load(settings(rad_root)).split("tset")


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
    assert len(vqa_rad.digest(settings(folder))) == 64
    assert data.image(test[0]).mode == "RGB"
    by_image = vqa_rad.load(settings(folder, split_by="image"))
    assert [len(by_image.split(split)) for split in ("train", "test")] == [1812, 436]

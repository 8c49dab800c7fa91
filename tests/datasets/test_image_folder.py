"""Folders of images as people have them: hidden files, odd suffixes, links, broken and absent ones."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from bench.datasets import image_folder
from bench.datasets.common.images import image_path
from bench.errors import DataError
from tests.datasets.conftest import picture, write
from tests.datasets.test_images import png_bomb


def settings(root: Path, **changes: Any) -> image_folder.Settings:
    return image_folder.Settings(name="image_folder", root=root, **changes)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Classes without splits."""
    for name in ("cat", "dog"):
        for number in range(50):
            picture(tmp_path / "flat" / name / f"{number}.jpg", size=(2, 2))
    return tmp_path / "flat"


def test_splits_classes_and_images(pets: Path) -> None:
    data = image_folder.load(settings(pets))
    test = data.split("test")
    assert [(e.question_id, e.image, e.answer, e.questions) for e in test] == [
        ("test/cat/0.jpg", "test/cat/0.jpg", "cat", ()),
        ("test/cat/1.jpg", "test/cat/1.jpg", "cat", ()),
        ("test/dog/0.JPEG", "test/dog/0.JPEG", "dog", ()),
        ("test/dog/1.JPEG", "test/dog/1.JPEG", "dog", ()),
    ]
    assert data.image(test[0]).size == (12, 8)
    assert data.texts() == ["cat", "dog"]
    assert len(data.split("train")) == 6


def test_it_reads_what_torchvision_reads(pets: Path) -> None:
    from torchvision.datasets import ImageFolder

    picture(pets / "train" / "cat" / "more" / "deep.Jpg")
    theirs = ImageFolder(str(pets / "train"))
    ours = image_folder.load(settings(pets)).split("train")
    found = [(str(pets / str(example.image)), example.answer) for example in ours]
    assert sorted(found) == sorted((path, theirs.classes[label]) for path, label in theirs.samples)


def test_every_kind_of_image_is_read_whatever_its_suffix_and_the_rest_is_counted(pets: Path) -> None:
    cats = pets / "test" / "cat"
    for name in ("9.JPEG", "9.ppm", "9.jp2", "9.sgi", "9.jfif", "9.tga", "9.pcx", "9"):
        kind = {".jp2": "JPEG2000", ".jfif": "JPEG", "": "PNG"}.get(Path(name).suffix)
        Image.new("RGB", (4, 4), (9, 9, 200)).save(cats / name, kind)
    picture(cats / "n0123.x1")
    picture(cats / "below" / "A.PNG")
    passed = ("notes.txt", "more.txt", "Thumbs.db", "drawing", "../.DS_Store", "../../readme.txt", "../labels.csv")
    for name in passed:
        write(cats / name, b"no image")
    for name in (".hidden.jpg", "._9.jpg", "../lost.jpg", "../.trash/1.jpg", ".hidden/1.jpg", "../../.cache/cat/1.jpg"):
        picture(cats / name)
    data = image_folder.load(settings(pets))
    test = data.split("test")
    assert Counter(e.answer for e in test) == {"cat": 2 + 10, "dog": 2}
    assert {data.image(example).mode for example in test} == {"RGB"}
    assert data.notes() == [
        "left out, as Pillow reads no image in it: 4 (2 .txt, 1 .db, 1 without suffix) (e.g. test/cat/Thumbs.db)",
        "left out, as it is beside the folders of the classes: 1 (1 .jpg) (e.g. test/lost.jpg)",
        "left out, as its name begins with a dot: 1 (1 .jpg) (e.g. test/cat/.hidden.jpg)",
    ]


def test_folders_that_may_be_one_class_are_told(pets: Path) -> None:
    assert image_folder.load(settings(pets)).notes() == []
    picture(pets / "train" / "Cat" / "0.jpg")
    picture(pets / "train" / "nan" / "0.jpg")
    first, second = image_folder.load(settings(pets)).notes()
    assert first == "classes that look like missing values count as classes: 'nan' (1 times)"
    assert second.endswith("are separate classes: 'Cat' (1 times), 'cat' (5 times)")


def test_a_share_of_the_names_is_for_testing_and_stays_when_files_are_added(flat: Path) -> None:
    def sides() -> dict[str, str]:
        data = image_folder.load(settings(flat, test_share=0.3))
        return {e.question_id: split for split in ("train", "test") for e in data.split(split)}

    before = sides()
    assert len(before) == 100
    assert 15 < sum(side == "test" for side in before.values()) < 45
    picture(flat / "cat" / "new.jpg")
    assert before.items() < sides().items()


def test_a_seed_draws_the_share_from_each_class_alike(flat: Path) -> None:
    for number in range(4):
        picture(flat / "rare" / f"{number}.jpg", size=(2, 2))

    def test(**changes: Any) -> list[str]:
        data = image_folder.load(settings(flat, test_share=0.3, **changes))
        names = [[e.question_id for e in data.split(split)] for split in ("train", "test")]
        assert len({*names[0], *names[1]}) == len(names[0]) + len(names[1]) == 104
        return names[1]

    drawn = test(test_seed=1)
    counts = Counter(name.partition("/")[0] for name in drawn)
    assert counts == {"cat": 15, "dog": 15, "rare": 1}
    assert test(test_seed=1) == drawn
    assert test(test_seed=2) != drawn
    with pytest.raises(ValidationError, match="test_seed goes with"):
        settings(flat, test_seed=1)


def test_several_splits_are_named_as_elsewhere(pets: Path) -> None:
    (pets / "train").rename(pets / "training")
    with pytest.raises(DataError, match=r"split 'train'; did you mean 'training'\?(?s:.*)data\.test_share"):
        image_folder.load(settings(pets))
    picture(pets / "val" / "cat" / "0.jpg")
    data = image_folder.load(settings(pets, train_split="training + val"))
    assert (len(data.split("training")), len(data.split("val"))) == (6, 1)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda _root: None, "there is no such folder"),
        (lambda root: (root / "train").mkdir(parents=True), r"train: has no folders; expected one per class"),
        (lambda root: (root / "train" / "cat").mkdir(parents=True), r"cat: the class has no images"),
        (lambda root: picture(root / "train" / "1.jpg"), r"train: has no folders; expected one per class"),
        (picture, "there is no such folder"),
    ],
)
def test_other_layouts_are_explained(tmp_path: Path, make: Any, expected: str) -> None:
    make(tmp_path / "root")
    with pytest.raises(DataError, match=expected):
        image_folder.digest(settings(tmp_path / "root"))


def test_broken_huge_and_absent_images_are_named(pets: Path) -> None:
    data = image_folder.load(settings(pets))
    cat, bomb, absent = data.split("test")[:3]
    (pets / str(cat.image)).write_bytes(b"\xff\xd8\xff no more")
    (pets / str(bomb.image)).write_bytes(png_bomb(8_000, 8_000))
    (pets / str(absent.image)).unlink()
    for example, problem in ((cat, "cannot be read as an image"), (bomb, "pixels"), (absent, "missing")):
        with pytest.raises(DataError, match=rf"{example.question_id}.*{problem}"):
            data.image(example)
    with pytest.raises(DataError, match=r"1 of 10 images are missing; the first is .*test/dog/0\.JPEG"):
        data.digest()


def test_links_out_of_the_folder_and_in_circles(pets: Path, tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.jpg")
    (pets / "test" / "cat" / "9.jpg").symlink_to(secret)
    (pets / "test" / "cat" / "again").symlink_to(pets)
    data = image_folder.load(settings(pets))
    linked = [e for e in data.split("test") if "9.jpg" in e.question_id]
    assert len(data.split("test")) == 5
    with pytest.raises(DataError, match=r"a link that leads out.*`data\.follow_links: true`"):
        data.image(linked[0])
    assert data.notes() == [
        "left out, as it is a link to a folder (see data.follow_links): 1 (1 without suffix) (e.g. test/cat/again)"
    ]
    elsewhere = picture(tmp_path / "elsewhere" / "1.jpg", size=(3, 3)).parent
    (pets / "test" / "cat" / "others").symlink_to(elsewhere)
    (pets / "test" / "horse").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(elsewhere)
    followed = image_folder.load(settings(pets, follow_links=True))
    found = {e.question_id: followed.image(e).size for e in followed.split("test")}
    assert found == {
        **{f"test/{name}": (12, 8) for name in ("cat/0.jpg", "cat/1.jpg", "cat/9.jpg", "dog/0.JPEG", "dog/1.JPEG")},
        **{f"test/{name}": (3, 3) for name in ("cat/others/1.jpg", "horse/1.jpg")},
    }


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "a\0.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="leads out of the image folder"):
        image_path(tmp_path / "images", name)


def test_links_within_the_folder_are_followed_and_the_folder_may_be_a_link(tmp_path: Path) -> None:
    inside = picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "c.jpg").symlink_to(inside)
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    for folder in ("images", "linked"):
        assert image_path(tmp_path / folder, "c.jpg").read_bytes() == inside.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="such names need another file system")
def test_names_that_are_no_text_and_names_of_other_scripts(pets: Path) -> None:
    picture(pets / "test" / "кошка" / "ё 1.jpg")
    data = image_folder.load(settings(pets))
    assert data.split("test")[-1].answer == "кошка"
    data.digest()
    picture(pets / "test" / os.fsdecode(b"\xff\xfe") / "1.jpg")
    with pytest.raises(DataError, match="UTF-8"):
        image_folder.load(settings(pets))

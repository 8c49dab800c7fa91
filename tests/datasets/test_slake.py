"""SLAKE: official layout, names of the released code, languages, verified images, and the Hub's archive."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import slake, slake_hub
from bench.datasets.common.rows import to_rows
from bench.errors import DataError
from tests.datasets.conftest import picture, write, write_json

RELEASED = ("img_name", "question", "answer", "qid")
"""Fields of the records in the released MILE code."""


def settings(root: Path, **changes: Any) -> slake.Settings:
    return slake.Settings(name="slake", root=root, **changes)


def counts(root: Path, **changes: Any) -> list[int]:
    data = slake.load(settings(root, **changes))
    return [len(data.split(split)) for split in ("train", "validate", "test")]


def test_languages_and_an_empty_answer(slake_root: Path) -> None:
    for language, expected in (("en", [2, 1, 1]), ("zh", [2, 1, 1]), ("all", [4, 2, 2])):
        assert counts(slake_root, language=language) == expected
    assert slake.load(settings(slake_root, language="zh")).split("test")[0].question() == "是绿色吗?"
    assert slake.load(settings(slake_root)).split("train")[0].answer == ""


def test_names_of_the_released_code_and_the_folder_above(slake_root: Path) -> None:
    expected = slake.load(settings(slake_root)).split("train")
    for split in ("train", "test"):
        (slake_root / f"{split}.json").rename(slake_root / f"slake_{split}.jsol")
    (slake_root / "validate.json").unlink()
    above = slake_root.parent / "above"
    shutil.move(slake_root, above / "Slake1.0")
    data = slake.load(settings(above))
    assert data.split("train") == expected
    assert data.image(expected[1]).size == (12, 8)
    with pytest.raises(DataError, match=r"unknown split 'validate'.*known: train, test"):
        data.split("validate")


def test_the_four_fields_of_the_released_code(slake_root: Path) -> None:
    whole = {language: slake.load(settings(slake_root, language=language)) for language in ("en", "zh")}
    for split in ("train", "test"):
        rows = json.loads((slake_root / f"{split}.json").read_text(encoding="utf-8"))
        kept = [{name: row[name] for name in RELEASED} for row in rows]
        (slake_root / f"{split}.json").unlink()
        write_json(slake_root / f"slake_{split}.jsol", kept)
    for language, before in whole.items():
        data = slake.load(settings(slake_root, language=language))
        for split in ("train", "test"):
            assert data.split(split) == [replace(e, answer_type=None) for e in before.split(split)]
        assert "slake_test.jsol does not say which questions are open" in data.notes()
        assert any("slake_train.jsol does not say the language" in note for note in data.notes())
    write_json(slake_root / "slake_test.jsol", [row for row in kept if row["question"].startswith("Is")])
    with pytest.raises(DataError, match=r"slake_test\.jsol: has no questions in the language 'zh'; see data\.language"):
        slake.load(settings(slake_root, language="zh"))


def test_a_link_to_the_images_is_followed_if_asked_for(slake_root: Path) -> None:
    shutil.move(slake_root / "imgs" / "xmlab0", slake_root.parent / "elsewhere")
    (slake_root / "imgs" / "xmlab0").symlink_to(slake_root.parent / "elsewhere")
    data = slake.load(settings(slake_root))
    with pytest.raises(DataError, match=r"link that leads out.*`data\.follow_links: true`"):
        data.image(data.split("train")[0])
    data = slake.load(settings(slake_root, follow_links=True))
    assert data.image(data.split("train")[0]).size == (12, 8)


# --- the manifest ----------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(slake_root: Path) -> Path:
    lines = ["img_name\tsha256\tbytes"]
    for path in sorted((slake_root / "imgs").rglob("*.jpg")):
        name, content = path.relative_to(slake_root / "imgs").as_posix(), path.read_bytes()
        lines.append(f"{name}\t{hashlib.sha256(content).hexdigest()}\t{len(content)}")
    return write(slake_root / slake.MANIFEST, "\n".join(lines) + "\n")


def test_untouched_images_pass(slake_root: Path, manifest: Path) -> None:
    assert manifest.is_file()
    for verify in ("sizes", "full"):
        data = slake.load(settings(slake_root, verify=verify))
        assert {data.image(example).size for example in data.split("train")} == {(12, 8)}


def test_an_image_of_another_size_is_found_at_once(slake_root: Path, manifest: Path) -> None:
    picture(slake_root / "imgs" / "xmlab3" / "source.jpg", size=(50, 50))
    with pytest.raises(DataError, match=rf"xmlab3/source\.jpg: is not the published image: .* bytes .*{manifest}"):
        slake.load(settings(slake_root))
    assert counts(slake_root, verify="off") == [2, 1, 1]


@pytest.mark.usefixtures("manifest")
def test_a_flipped_byte_is_found_when_opened_or_at_once_with_full(slake_root: Path) -> None:
    path = slake_root / "imgs" / "xmlab1" / "source.jpg"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    data = slake.load(settings(slake_root))
    for function in (
        lambda: data.image(data.split("train")[1]),
        lambda: slake.load(settings(slake_root, verify="full")),
    ):
        with pytest.raises(DataError, match=r"xmlab1/source\.jpg: is not the published image: SHA-256"):
            function()


def test_manifest_elsewhere_unlisted_image_and_broken_line(slake_root: Path, manifest: Path) -> None:
    manifest = manifest.rename(slake_root.parent / "list.tsv")
    lines = manifest.read_text().splitlines()
    for content, expected in (
        (lines[:-1], r"xmlab3/source\.jpg: is not listed in .*list\.tsv"),
        ([*lines, "xmlab9/source.jpg\tabc\tmany"], r"list\.tsv:6: expected img_name"),
    ):
        manifest.write_text("\n".join(content))
        with pytest.raises(DataError, match=expected):
            slake.load(settings(slake_root, manifest=manifest))


# --- the real files --------------------------------------------------------------------------------------------


def test_the_language_of_the_real_questions_is_known_by_their_script(shared_data: Path) -> None:
    for split in ("train", "validate", "test"):
        rows = json.loads((shared_data / "slake" / f"{split}.json").read_text(encoding="utf-8"))
        bare = [{name: row[name] for name in RELEASED} for row in rows]
        for language in ("en", "zh"):
            whole, found = (slake.examples_of("a", to_rows("a", records), language) for records in (rows, bare))
            assert [e.question_id for e in found] == [e.question_id for e in whole]


def test_the_real_annotations(shared_data: Path) -> None:
    root = shared_data / "slake"
    assert counts(root, verify="off") == [4919, 1053, 1061]
    data = slake.load(settings(root, verify="off"))
    assert sum(e.answer.lower() in ("yes", "no") for e in data.split("test")) == 355
    manifest = slake.read_manifest(root / slake.MANIFEST)
    assert (len(manifest), sum(size for _, size in manifest.values())) == (642, 55_895_191)
    assert {e.image for split in ("train", "validate", "test") for e in data.split(split)} <= set(manifest)


# --- the Hub's archive -----------------------------------------------------------------------------------------


def from_hub(root: Path, **changes: Any) -> slake_hub.Settings:
    return slake_hub.Settings(name="slake_hub", id=str(root), **changes)


def rewrite(path: Path, prefix: str = "imgs/", **options: Any) -> None:
    """The same archive with another prefix or compression."""
    with zipfile.ZipFile(path) as archive:
        contents = {name.removeprefix("imgs/"): archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in contents.items():
            archive.writestr(f"{prefix}{name}", content)
            if prefix != "imgs/":
                archive.writestr(f"__MACOSX/{prefix}{name}", b"")


@pytest.mark.usefixtures("offline")
def test_the_hub_reads_like_the_local_files(slake_hub_root: Path, slake_root: Path) -> None:
    for language in ("en", "zh"):
        ours = slake_hub.load(from_hub(slake_hub_root, language=language))
        local = slake.load(settings(slake_root, language=language))
        for split in ("train", "validate", "test"):
            assert ours.split(split) == local.split(split)
            for example in ours.split(split):
                assert ours.image(example).tobytes() == local.image(example).tobytes()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("prefix", ["", "Slake1.0/imgs/", "./imgs/"])
def test_the_archive_with_another_prefix_or_none(slake_hub_root: Path, prefix: str) -> None:
    before = slake_hub.load(from_hub(slake_hub_root))
    example = before.split("train")[1]
    pixels = before.image(example).tobytes()
    rewrite(slake_hub_root / "imgs.zip", prefix)
    assert slake_hub.load(from_hub(slake_hub_root)).image(example).tobytes() == pixels
    with zipfile.ZipFile(slake_hub_root / "imgs.zip", "a") as archive:
        archive.writestr("more/xmlab1/source.jpg", b"")
    with pytest.raises(DataError, match=r"imgs\.zip: has the image xmlab1/source\.jpg twice"):
        slake_hub.load(from_hub(slake_hub_root))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_file_in_the_archive_is_named(slake_hub_root: Path, compression: int) -> None:
    path = slake_hub_root / "imgs.zip"
    rewrite(path, compression=compression)
    damaged = bytearray(path.read_bytes())
    damaged[52:200] = b"\xff" * 148
    path.write_bytes(damaged)
    data = slake_hub.load(from_hub(slake_hub_root))
    with pytest.raises(DataError, match=r"imgs\.zip: imgs/xmlab0/source\.jpg \(question 0\): cannot be unpacked"):
        data.image(data.split("train")[0])


@pytest.mark.usefixtures("offline")
def test_an_archive_that_is_none_or_lacks_images(slake_hub_root: Path) -> None:
    path = slake_hub_root / "imgs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("imgs/xmlab0/source.jpg", b"")
    with pytest.raises(DataError, match=r"3 of 4 images are missing; the first is xmlab1/source\.jpg"):
        slake_hub.digest(from_hub(slake_hub_root))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        slake_hub.load(from_hub(slake_hub_root))

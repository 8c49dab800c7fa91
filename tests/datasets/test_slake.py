"""SLAKE: official layout, names of the released code, languages, verified images."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import slake
from bench.datasets.common.rows import to_rows
from bench.errors import DataError
from bench.plugins.settings import local_path_places
from tests.datasets.conftest import picture, write_json


def settings(root: Path, **changes: Any) -> slake.Settings:
    return slake.Settings(name="slake", root=root, **changes)


def counts(root: Path, **changes: Any) -> list[int]:
    data = slake.load(settings(root, **changes))
    return [len(data.split(split)) for split in ("train", "validate", "test")]


def write_manifest(root: Path) -> Path:
    lines = ["img_name\tsha256\tbytes"]
    for path in sorted((root / "imgs").rglob("*.jpg")):
        content = path.read_bytes()
        name = path.relative_to(root / "imgs").as_posix()
        lines.append(f"{name}\t{hashlib.sha256(content).hexdigest()}\t{len(content)}")
    manifest = root / slake.MANIFEST
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def test_languages(slake_root: Path) -> None:
    assert counts(slake_root) == [2, 1, 1]
    assert counts(slake_root, language="zh") == [2, 1, 1]
    assert counts(slake_root, language="all") == [4, 2, 2]
    assert slake.load(settings(slake_root, language="zh")).split("test")[0].question() == "是绿色吗?"


def test_an_empty_answer_is_kept(slake_root: Path) -> None:
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
        kept = [{name: row[name] for name in ("img_name", "question", "answer", "qid")} for row in rows]
        (slake_root / f"{split}.json").unlink()
        write_json(slake_root / f"slake_{split}.jsol", kept)
    (slake_root / "validate.json").unlink()
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


def test_missing_data_says_what_to_do(slake_root: Path, tmp_path: Path) -> None:
    (slake_root / "test.json").unlink()
    for root in (slake_root, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"(?s)med-vqa\.com/slake.*imgs/xmlab0/source\.jpg.*--scale demo"):
            slake.digest(settings(root))


def test_untouched_images_pass(slake_root: Path) -> None:
    write_manifest(slake_root)
    for verify in ("sizes", "full"):
        data = slake.load(settings(slake_root, verify=verify))
        for example in data.split("train"):
            assert data.image(example).size == (12, 8)


def test_an_image_of_another_size_is_found_at_once(slake_root: Path) -> None:
    manifest = write_manifest(slake_root)
    picture(slake_root / "imgs" / "xmlab3" / "source.jpg", size=(50, 50))
    with pytest.raises(DataError, match=rf"xmlab3/source\.jpg: is not the published image: .* bytes .*{manifest}"):
        slake.load(settings(slake_root))
    assert counts(slake_root, verify="off") == [2, 1, 1]


def test_a_flipped_byte_is_found_when_opened_or_at_once_with_full(slake_root: Path) -> None:
    write_manifest(slake_root)
    path = slake_root / "imgs" / "xmlab1" / "source.jpg"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    data = slake.load(settings(slake_root))
    with pytest.raises(DataError, match=r"xmlab1/source\.jpg: is not the published image: SHA-256"):
        data.image(data.split("train")[1])
    with pytest.raises(DataError, match=r"xmlab1/source\.jpg: is not the published image: SHA-256"):
        slake.load(settings(slake_root, verify="full"))


def test_manifest_elsewhere_unlisted_image_and_broken_line(slake_root: Path) -> None:
    manifest = write_manifest(slake_root).rename(slake_root.parent / "list.tsv")
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"xmlab3/source\.jpg: is not listed in .*list\.tsv"):
        slake.load(settings(slake_root, manifest=manifest))
    manifest.write_text("\n".join([*lines, "xmlab9/source.jpg\tabc\tmany"]))
    with pytest.raises(DataError, match=r"list\.tsv:6: expected img_name"):
        slake.load(settings(slake_root, manifest=manifest))


def test_where_it_lies_and_how_it_is_verified_is_not_what_it_is() -> None:
    assert local_path_places(settings(Path("x"))) == {*(("root",), ("manifest",), ("verify",), ("follow_links",))}


def test_the_language_of_the_real_questions_is_known_by_their_script(shared_data: Path) -> None:
    for split in ("train", "validate", "test"):
        path = shared_data / "slake" / f"{split}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        bare = [{name: row[name] for name in ("img_name", "question", "answer", "qid")} for row in rows]
        for language in ("en", "zh"):
            whole = slake.examples_of("a", to_rows("a", rows), language)
            found = slake.examples_of("b", to_rows("b", bare), language)
            assert [e.question_id for e in found] == [e.question_id for e in whole]


def test_the_real_annotations(shared_data: Path) -> None:
    root = shared_data / "slake"
    data = slake.load(settings(root, verify="off"))
    assert [len(data.split(split)) for split in ("train", "validate", "test")] == [4919, 1053, 1061]
    assert sum(e.answer.lower() in ("yes", "no") for e in data.split("test")) == 355
    manifest = slake.read_manifest(root / slake.MANIFEST)
    assert len(manifest) == 642
    assert sum(size for _, size in manifest.values()) == 55_895_191
    needed = {e.image for split in ("train", "validate", "test") for e in data.split(split)}
    assert needed <= set(manifest)

"""Data sets in the Hub's layouts, read from local folders by the real ``datasets`` library."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.datasets import slake, slake_hub, vqa_rad_hub
from bench.errors import DataError

datasets = pytest.importorskip("datasets", reason="the [hub] extra is not installed")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def jpeg(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 6), (level, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def table(rows: list[tuple[bytes, str, str]]) -> Any:
    columns = {
        "image": [{"bytes": image, "path": None} for image, _, _ in rows],
        "question": [question for _, question, _ in rows],
        "answer": [answer for _, _, answer in rows],
    }
    features = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def rad_folder(root: Path, train: list[tuple[bytes, str, str]]) -> Path:
    (root / "data").mkdir(parents=True)
    table(train).to_parquet(root / "data" / "train-00000-of-00001.parquet")
    table([(jpeg(90), "what is this?", "chest")]).to_parquet(root / "data" / "test-00000-of-00001.parquet")
    return root


def rad_settings(root: Path, **changes: Any) -> vqa_rad_hub.Settings:
    return vqa_rad_hub.Settings(name="vqa_rad_hub", id=str(root), **changes)


def test_vqa_rad_as_parquet_files(tmp_path: Path) -> None:
    rows = [(jpeg(200), "is it red?", "yes"), (jpeg(200), "is it  blue?", "no"), (jpeg(50), "what is it?", "lung")]
    root = rad_folder(tmp_path / "rad", rows)
    data = vqa_rad_hub.load(rad_settings(root))
    train = data.split("train")
    assert [(e.question(), e.answer, e.answer_type) for e in train] == [
        ("is it red?", "yes", None),
        ("is it blue?", "no", None),
        ("what is it?", "lung", None),
    ]
    assert train[0].image == train[1].image != train[2].image
    assert data.image_digests is not None
    assert data.image_digests([train[2].image_name]) == [hashlib.sha256(jpeg(50)).hexdigest()]
    assert data.image(train[2]).getpixel((0, 0))[0] == pytest.approx(50, abs=3)  # type: ignore[index]
    assert data.image(data.split("test")[0]).size == (10, 6)
    digest = vqa_rad_hub.digest(rad_settings(root))
    assert digest == vqa_rad_hub.digest(rad_settings(root))
    other = rad_folder(tmp_path / "other", [*rows[:2], (jpeg(51), "what is it?", "lung")])
    assert vqa_rad_hub.digest(rad_settings(other)) != digest


def test_vqa_rad_saved_to_disk_and_a_broken_image(tmp_path: Path) -> None:
    tables = {"train": table([(b"no image", "is it?", "yes")]), "test": table([(jpeg(9), "why?", "so")])}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    data = vqa_rad_hub.load(rad_settings(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"\(train\): record 0 \(question train-0\): cannot be read as an image"):
        data.image(data.split("train")[0])


def test_leaky_table_is_refused_unless_asked_for(tmp_path: Path) -> None:
    root = rad_folder(tmp_path / "rad", [(jpeg(90), "What is this", "chest")])
    with pytest.raises(DataError, match="allow_leaky"):
        vqa_rad_hub.digest(rad_settings(root))
    assert len(vqa_rad_hub.load(rad_settings(root, allow_leaky=True)).split("train")) == 1


@pytest.fixture
def slake_hub_root(slake_root: Path, tmp_path: Path) -> Path:
    """The Hub's layout, made of the official one."""
    root = tmp_path / "hub"
    root.mkdir()
    for name in ("train", "validate", "test"):
        target = root / slake_hub.FILES[name]
        target.write_bytes((slake_root / f"{name}.json").read_bytes())
    with zipfile.ZipFile(root / "imgs.zip", "w") as archive:
        for path in sorted((slake_root / "imgs").rglob("*.jpg")):
            archive.write(path, path.relative_to(slake_root))
    return root


def slake_settings(root: Path, **changes: Any) -> slake_hub.Settings:
    return slake_hub.Settings(name="slake_hub", id=str(root), **changes)


def test_slake_reads_like_the_local_files(slake_hub_root: Path, slake_root: Path) -> None:
    for language in ("en", "zh"):
        ours = slake_hub.load(slake_settings(slake_hub_root, language=language))
        local = slake.load(slake.Settings(name="slake", root=slake_root, language=language))
        for split in ("train", "validate", "test"):
            assert ours.split(split) == local.split(split)
            for example in ours.split(split):
                assert ours.image(example).tobytes() == local.image(example).tobytes()
    assert slake_hub.digest(slake_settings(slake_hub_root)) == slake_hub.digest(slake_settings(slake_hub_root))


@pytest.mark.parametrize("prefix", ["", "Slake1.0/imgs/", "./imgs/"])
def test_slakes_archive_with_another_prefix_or_none(slake_hub_root: Path, prefix: str) -> None:
    path = slake_hub_root / "imgs.zip"
    before = slake_hub.load(slake_settings(slake_hub_root))
    example = before.split("train")[1]
    pixels = before.image(example).tobytes()
    with zipfile.ZipFile(path) as archive:
        contents = {name.removeprefix("imgs/"): archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"{prefix}{name}", content)
            archive.writestr(f"__MACOSX/{prefix}{name}", b"")
    assert slake_hub.load(slake_settings(slake_hub_root)).image(example).tobytes() == pixels
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more/xmlab1/source.jpg", b"")
    with pytest.raises(DataError, match=r"imgs\.zip: has the image xmlab1/source\.jpg twice"):
        slake_hub.load(slake_settings(slake_hub_root))


@pytest.mark.parametrize(("compression", "level"), [(zipfile.ZIP_STORED, 0), (zipfile.ZIP_DEFLATED, 9)])
def test_a_damaged_file_in_slakes_archive_is_named(slake_hub_root: Path, compression: int, level: int) -> None:
    path = slake_hub_root / "imgs.zip"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression, compresslevel=level) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    damaged = bytearray(path.read_bytes())
    damaged[52:200] = b"\xff" * 148
    path.write_bytes(damaged)
    data = slake_hub.load(slake_settings(slake_hub_root))
    with pytest.raises(DataError, match=r"imgs\.zip: imgs/xmlab0/source\.jpg \(question 0\): cannot be unpacked"):
        data.image(data.split("train")[0])


def test_slake_archive_that_is_none_or_lacks_images(slake_hub_root: Path) -> None:
    path = slake_hub_root / "imgs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("imgs/xmlab0/source.jpg", b"")
    with pytest.raises(DataError, match=r"3 of 4 images are missing; the first is xmlab1/source\.jpg"):
        slake_hub.digest(slake_settings(slake_hub_root))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        slake_hub.load(slake_settings(slake_hub_root))


@pytest.mark.parametrize("module", [vqa_rad_hub, slake_hub])
def test_absent_data_and_absent_extra_say_what_to_do(module: Any, tmp_path: Path, monkeypatch: Any) -> None:
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(DataError, match=r"(?s)cannot be loaded.*--scale demo"):
        module.digest(module.Settings(name=name, id=str(tmp_path / "absent")))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"\[hub\]"):
        module.digest(module.Settings(name=name))


def test_the_table_rows_are_named_when_a_column_is_missing(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps([{"question": "is it?"}]))
    (tmp_path / "test.json").write_text(json.dumps([{"question": "is it?"}]))
    with pytest.raises(DataError, match=r"\(train\): there is no column 'image'"):
        vqa_rad_hub.load(rad_settings(tmp_path))

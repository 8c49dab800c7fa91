"""Hostile and broken files: each is refused with an error that names it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from bench.datasets import _files
from bench.errors import DataError
from tests.datasets.conftest import picture


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"qid": 1},\n {"qid": }]', r"a\.json:2:10: not valid JSON"),
        (b'{"qid": 1}\n{"qid": 2', r"a\.json:2:\d+: not valid JSON"),
        (b"\xff\xfe\x00", r"a\.json: cannot be read as UTF-8"),
        (b"[" * 100_000, r"a\.json:1: not valid JSON"),
        (b"[" + b"9" * 5_000 + b"]", r"a\.json:1: not valid JSON"),
        (b"[]", r"a\.json: holds no records"),
        (b"  \n", r"a\.json: holds no records"),
    ],
)
def test_broken_json_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        _files.read_json(path)


def test_json_array_and_json_lines_read_alike(tmp_path: Path) -> None:
    array, lines = tmp_path / "a.json", tmp_path / "b.jsol"
    array.write_bytes(b'\xef\xbb\xbf[{"q": "a\\u2028b"}, {"q": "c"}]')
    lines.write_text('{"q": "a\u2028b"}\n\n{"q": "c"}\n', encoding="utf-8")
    assert _files.read_json(array) == _files.read_json(lines) == [{"q": "a\u2028b"}, {"q": "c"}]


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "a\0.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="leads out of the image folder"):
        _files.image_path(tmp_path / "images", name)


def test_links_out_of_the_folder_are_refused_but_the_folder_may_be_a_link(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.jpg")
    inside = picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").symlink_to(secret)
    (tmp_path / "images" / "c.jpg").symlink_to(inside)
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match=r"b\.jpg is a link that leads out"):
        _files.image_path(tmp_path / "images", "b.jpg")
    for folder in ("images", "linked"):
        assert _files.open_image(_files.image_path(tmp_path / folder, "c.jpg"), "1").size == (12, 8)


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of black pixels as far as it goes: 1 kB that claims any size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1_000_000))),
    ]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bomb(side, side))
    with pytest.raises(DataError, match=r"bomb\.png \(question 7\).*pixels"):
        _files.open_image(path, "7")


def test_broken_images_name_file_and_question(tmp_path: Path) -> None:
    whole = picture(tmp_path / "whole.jpg", size=(200, 200))
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(whole.read_bytes()[:-200])
    pointer = tmp_path / "pointer.jpg"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for path in (truncated, pointer, tmp_path):
        with pytest.raises(DataError, match=rf"{path.name} \(question 7\): cannot be read as an image"):
            _files.open_image(path, "7")
    with pytest.raises(DataError, match=r"absent\.jpg \(question 7\): the image is missing"):
        _files.open_image(tmp_path / "absent.jpg", "7")


def test_16_bit_images_are_not_clipped_to_white(tmp_path: Path) -> None:
    Image.new("I;16", (4, 4), 40_000).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        _files.open_image(tmp_path / "deep.png", "7")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new(mode, (4, 4)).save(tmp_path / f"a.{suffix}")
    assert _files.open_image(tmp_path / f"a.{suffix}", "7").mode == "RGB"

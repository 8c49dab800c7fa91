"""Images as people have them: turned, transparent, deep, of many frames, of any kind, broken, hostile."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose

from bench.datasets.common import images
from bench.datasets.common.dataset import Notes
from bench.errors import DataError
from tests.datasets.conftest import picture

UPRIGHT = np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[0, 0, 0], [120, 120, 120], [250, 250, 250]]], np.uint8)
"""Two rows and three columns that look different from all sides."""
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
"""Orientation -> how a camera that was held so lays the picture down."""


Image.init()
AVIF = pytest.mark.skipif("AVIF" not in Image.SAVE, reason="this Pillow writes no AVIF")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(image: Image.Image, kind: str = "PNG", notes: Notes | None = None, **options: Any) -> np.ndarray[Any, Any]:
    found = images.decode_image(encoded(image, kind, **options), "a", notes)
    assert found.mode == "RGB"
    return np.asarray(found)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, marks=AVIF),
    ],
)
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_as_their_exif_says(kind: str, options: dict[str, Any], orientation: int) -> None:
    big = Image.fromarray(UPRIGHT.repeat(16, 0).repeat(16, 1))
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(big if turn is None else big.transpose(turn), kind, exif=exif, **options)
    assert found.shape == (32, 48, 3)
    assert np.abs(found[8::16, 8::16].astype(int) - UPRIGHT).max() < 12


@pytest.mark.parametrize(
    "block", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_a_broken_exif_block_turns_nothing(block: bytes) -> None:
    assert decoded(Image.fromarray(UPRIGHT.repeat(16, 0)), "JPEG", exif=block).shape == (32, 3, 3)


def rgba(alphas: list[int]) -> Image.Image:
    """Black, as transparent as asked for."""
    return Image.fromarray(np.array([[[0, 0, 0, alpha] for alpha in alphas]], np.uint8))


def test_transparent_pictures_stand_on_white() -> None:
    assert decoded(rgba([0, 51, 255]))[0, :, 0].tolist() == [255, 204, 0]
    assert decoded(rgba([0, 51, 255]).convert("LA"))[0, :, 0].tolist() == [255, 204, 0]
    assert decoded(rgba([0, 51, 255]), "WEBP", lossless=True)[0, :, 0].tolist() == [255, 204, 0]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    palette.putpalette([0, 0, 0] * 3)
    assert decoded(palette, transparency=bytes([0, 51, 255]))[0, :, 0].tolist() == [255, 204, 0]
    assert decoded(palette, transparency=0)[0, :, 0].tolist() == [255, 0, 0]
    assert decoded(palette, "GIF", transparency=1)[0, :, 0].tolist() == [0, 255, 0]
    alpha_in_palette = Image.new("PA", (2, 1), 0)
    alpha_in_palette.putpixel((1, 0), (0, 255))
    assert decoded(alpha_in_palette, "TIFF").shape == (1, 2, 3)


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 1), ("I;16", 30_000)])
def test_a_transparent_colour_becomes_white(mode: str, colour: Any) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((0, 0), 255 if mode == "1" else colour)
    if mode == "I;16":
        image.putpixel((1, 0), 60_000)
    found = decoded(image, transparency=colour)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == ([233, 233, 233] if mode == "I;16" else [0, 0, 0])


def png(depth: int, kind: int, rows: bytes, *, size: tuple[int, int], transparent: bytes = b"") -> bytes:
    """What Pillow cannot write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))]
    chunks += [(b"tRNS", transparent)] if transparent else []
    return _png([*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_transparent_colours_of_other_depths() -> None:
    four_bits = png(4, 0, b"\0\x7f", size=(2, 1), transparent=b"\0\x07")
    assert np.asarray(images.decode_image(four_bits, "a"))[0, :, 0].tolist() == [255, 255]
    assert np.asarray(images.decode_image(png(4, 0, b"\0\x70", size=(2, 1)), "a"))[0, :, 0].tolist() == [119, 0]
    deep = png(16, 2, b"\0" + b"\x80\0" * 3, size=(1, 1), transparent=b"\x80\0" * 3)
    with pytest.raises(DataError, match="16 bits a channel and a transparent colour"):
        images.decode_image(deep, "a")


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_images_are_scaled_not_clipped(mode: str) -> None:
    levels = np.array([[0, 257, 32_768, 40_000, 65_535]], ">u2" if mode == "I;16B" else "<u2")
    found = decoded(Image.frombytes(mode, (5, 1), levels.tobytes()), "TIFF")
    assert found[0, :, 0].tolist() == [0, 1, 128, 156, 255]
    assert decoded(Image.new("I;16", (4, 4), 40_000))[0, 0].tolist() == [156, 156, 156]
    maps = b"P5 2 1 4095\n" + struct.pack(">HH", 0, 4095)
    assert np.asarray(images.decode_image(maps, "a"))[0, :, 0].tolist() == [0, 255]


def test_deep_images_whose_range_is_not_known_are_refused() -> None:
    with pytest.raises(DataError, match=r"brightest value is 3,071 of 65,535: it would be nearly black; scale it"):
        decoded(Image.new("I;16", (4, 4), 3_071))
    assert decoded(Image.new("I;16", (4, 4), 0)).max() == 0
    for mode in ("I", "F"):
        with pytest.raises(DataError, match=rf"32 bits \(mode {mode}\)"):
            decoded(Image.new(mode, (4, 4), 1), "TIFF")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_used_and_that_is_said_once(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), (level, level, level)) for level in (240, 0, 100)]
    notes = Notes()
    for _ in range(2):
        assert decoded(frames[0], kind, notes, save_all=True, append_images=frames[1:]).mean() == pytest.approx(
            240, abs=2
        )
    assert notes.texts() == ["of images with several frames the first one is used (e.g. a)"]
    decoded(frames[0], kind, still := Notes())
    assert still.texts() == []


@pytest.mark.parametrize("kind", sorted({*images.FORMATS} & {*Image.SAVE} - {"BLP", "DIB", "MSP", "XBM"}))
def test_every_kind_is_read_and_known_without_a_suffix(kind: str, tmp_path: Path) -> None:
    side = 64 if kind in ("ICNS", "ICO") else 16
    path = tmp_path / "picture"
    path.write_bytes(encoded(Image.new("RGB", (side, side), (200, 10, 10)), kind))
    assert images.is_image(path)
    assert (
        np.abs(np.asarray(images.decode_image(path, f"{path} (question 7)")).astype(int)[0, 0] - [200, 10, 10]).max()
        < 12
    )


def test_targa_is_known_by_its_suffix_alone_and_drawings_are_no_images(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "a.tga")
    assert images.decode_image(tmp_path / "a.tga", "a").getpixel((0, 0)) == (200, 10, 10)
    (tmp_path / "a").write_bytes((tmp_path / "a.tga").read_bytes())
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.txt").write_text("P1 is no picture")
    assert [name for name in ("a.tga", "a", "a.eps", "a.txt") if images.is_image(tmp_path / name)] == ["a.tga"]


def test_plain_pictures_decode_as_pillow_has_them() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    for image in (Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0]), Image.fromarray(noise, "CMYK")):
        for kind in ("TIFF", "JPEG"):
            with Image.open(io.BytesIO(encoded(image, kind))) as stored:
                assert (decoded(image, kind) == np.asarray(stored.convert("RGB"))).all()
    opaque = noise.copy()
    opaque[..., 3] = 255
    assert (decoded(Image.fromarray(opaque)) == noise[..., :3]).all()


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of black pixels as far as it goes: 1 kB that claims any size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1_000_000))),
    ]
    return _png(chunks)


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bomb(side, side))
    with pytest.raises(DataError, match=r"bomb\.png \(question 7\).*pixels"):
        images.decode_image(path, f"{path} (question 7)")


def test_broken_images_name_file_and_question(tmp_path: Path) -> None:
    whole = picture(tmp_path / "whole.jpg", size=(200, 200))
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(whole.read_bytes()[:-200])
    pointer = tmp_path / "pointer.jpg"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for path in (truncated, pointer, tmp_path):
        with pytest.raises(DataError, match=rf"{path.name} \(question 7\): cannot be read as an image"):
            images.decode_image(path, f"{path} (question 7)")
    with pytest.raises(DataError, match=r"absent\.jpg \(question 7\): the image is missing"):
        images.decode_image(tmp_path / "absent.jpg", f"{tmp_path}/absent.jpg (question 7)")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new(mode, (4, 4)).save(tmp_path / f"a.{suffix}")
    assert images.decode_image(tmp_path / f"a.{suffix}", "a").mode == "RGB"

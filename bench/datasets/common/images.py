"""Image files of any kind to RGB with 8 bits a channel: upright, on white, or refused by name."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.datasets.common.notes import Notes
from bench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded (Pillow itself only warns at up to 179 million pixels)."""
FORMATS = (
    *("AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GIF", "ICNS", "ICO", "JPEG"),
    *("JPEG2000", "MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TIFF", "WEBP", "XBM", "XPM"),
)
"""What Pillow decodes and knows by the first bytes. Left out: EPS and WMF (drawn by other programs), and what Pillow
names but cannot decode."""
SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".avifs", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc", ".fli"),
        *(".gif", ".icb", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg"),
        *(".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".ras", ".rgb", ".rgba", ".sgi"),
        *(".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"),
    )
)
"""Of files that are taken for images unseen, so that a broken one is an error; in any case."""
_TGA = (".tga", ".icb", ".vda", ".vst")
"""Known by its suffix alone: its first bytes say nothing."""
_WHITE = (255, 255, 255)
_DEEPEST = 65_535
_DIM = 4_096
"""16-bit images whose values all lie below are 12-bit data (or less) as they came from a device."""
_ORIENTATION = 0x0112


def open_image(path: Path, question_id: str, notes: Notes | None = None) -> Image:
    """Decode to RGB. Raises DataError that names file and question: missing, truncated, too large, no image."""
    return _decode(path, f"{path} (question {question_id})", f"{path.parent.name}/{path.name}", notes)


def decode_image(data: bytes, where: str, notes: Notes | None = None) -> Image:
    """The same for an image that is not a file of its own; ``where`` names it in errors."""
    return _decode(io.BytesIO(data), where, where, notes)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or, whatever that is, by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    import PIL.Image

    try:
        PIL.Image.open(path, formats=_formats()).close()
    except Exception:  # whatever a file that is something else makes Pillow raise
        return False
    return True


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow knows."""
    import PIL.Image

    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


def _decode(file: Path | io.BytesIO, where: str, name: str, notes: Notes | None) -> Image:
    """``where`` is for errors, ``name`` for notes."""
    import PIL.Image

    formats = (*_formats(), "TGA") if isinstance(file, Path) and file.suffix.lower() in _TGA else _formats()
    try:
        with PIL.Image.open(file, formats=formats) as image:
            _check_size(image, where)
            if notes is not None and image.format != "PSD" and getattr(image, "is_animated", False):
                notes.add("of images with several frames the first one is used", name)
            raw_mode = _raw_mode(image)
            image.load()
            return _rgb(_upright(image), raw_mode, where)
    except FileNotFoundError as error:
        raise DataError(f"{where}: the image is missing") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them raise
        raise DataError(f"{where}: cannot be read as an image: {error or type(error).__name__}") from error


def _check_size(image: Image, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted")


def _raw_mode(image: Image) -> str:
    """How the pixels lie in the file, ``L;2``, ``RGB;16B``: known until it is loaded; empty where it is not said."""
    arguments = getattr(image, "tile", None) and image.tile[0][3]  # type: ignore[attr-defined]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _upright(image: Image) -> Image:
    """Turned as EXIF says. Formats that Pillow turns by itself (TIFF, AVIF) say nothing any more once loaded."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a broken EXIF block turns nothing, as in every viewer
        return image
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _rgb(image: Image, raw_mode: str, where: str) -> Image:
    if image.mode.startswith(("I", "F")):
        return _from_deep(image, where)
    if not image.has_transparency_data:
        return image.convert("RGB")
    import PIL.Image

    rgba = _with_alpha(image, raw_mode, where)
    on_white = PIL.Image.new("RGB", rgba.size, _WHITE)
    on_white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return on_white


def _with_alpha(image: Image, raw_mode: str, where: str) -> Image:
    """As RGBA. Raises DataError for a transparent colour that Pillow no longer knows once it is loaded."""
    colour = image.info.get("transparency")
    if image.mode == "RGB" and ";16" in raw_mode:
        raise DataError(
            f"{where}: has 16 bits a channel and a transparent colour; save it with an alpha channel instead"
        )
    if image.mode == "L" and isinstance(colour, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[raw_mode]  # pixels are scaled, the colour is not
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _from_deep(image: Image, where: str) -> Image:
    """16 bits a channel scaled to 8 (Pillow's own conversion clips to white). Raises DataError where the range of the
    values is not known, or hardly used: how to show such data is the user's choice."""
    import numpy as np
    import PIL.Image

    if not image.mode.startswith("I;16") and image.format != "PPM":
        raise DataError(
            f"{where}: has pixels of 32 bits (mode {image.mode}), whose range nothing says; scale it to 8 bits"
        )
    levels = np.asarray(image).astype(np.int64)
    brightest = int(levels.max())
    if 0 < brightest < _DIM:
        raise DataError(
            f"{where}: has 16 bits a channel, but its brightest value is {brightest:,} of {_DEEPEST:,}: it would be "
            "nearly black; scale it to the range you want to show and save it with 8 bits a channel"
        )
    grey = np.rint(levels * (255 / _DEEPEST))
    colour = image.info.get("transparency")
    if isinstance(colour, int):
        grey[levels == colour] = _WHITE[0]
    return PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB")

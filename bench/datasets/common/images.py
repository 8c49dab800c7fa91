"""Decoding of images to upright RGB with 8 bits a channel, and folders of images with their digests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from bench.datasets.common.dataset import DataSet, Notes
from bench.errors import DataError
from bench.files import MissingFilesError, sha256_of_all
from bench.plugins import DataSettings, Example
from bench.plugins.settings import LocalPathMark

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded (Pillow itself only warns at up to 179 million pixels)."""
FORMATS = (
    *("AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GIF", "ICNS", "ICO", "JPEG"),
    *("JPEG2000", "MSP", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TIFF", "WEBP", "XBM", "XPM"),
)
"""Formats that Pillow recognises by their first bytes and decodes itself; not EPS and WMF, drawn by other programs."""
SUFFIXES = frozenset(
    (
        *(".apng", ".avif", ".avifs", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc", ".fli"),
        *(".gif", ".icb", ".icns", ".ico", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg"),
        *(".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".ras", ".rgb", ".rgba", ".sgi"),
        *(".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm", ".xpm"),
    )
)
"""A file with one of these suffixes, in any case, counts as an image before it is read: a broken one is an error."""
_TGA = (".tga", ".icb", ".vda", ".vst")  # known by the suffix alone: the first bytes say nothing
_WHITE = (255, 255, 255)
_DEEPEST = 65_535
_DIM = 4_096
"""A 16-bit image with smaller values alone holds at most 12 bits, as medical devices write them."""
_ORIENTATION = 0x0112
_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
          7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
"""EXIF orientation -> ``PIL.Image.Transpose``."""


def decode_image(file: Path | bytes, where: str, notes: Notes | None = None) -> Image:
    """Decode to RGB. Raises DataError that begins with ``where``: missing, truncated, too large, no image."""
    import PIL.Image

    tga = isinstance(file, Path) and file.suffix.lower() in _TGA
    formats = [*_formats(), "TGA"] if tga else _formats()
    try:
        with PIL.Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            _check_size(image, where)
            if notes is not None and image.format != "PSD" and getattr(image, "is_animated", False):
                place = f"{file.parent.name}/{file.name}" if isinstance(file, Path) else where
                notes.add("of images with several frames the first one is used", place)
            raw_mode = _raw_mode(image)  # Pillow forgets it when it loads the pixels
            image.load()
            return _rgb(_upright(image), raw_mode, where)
    except FileNotFoundError as error:
        raise DataError(f"{where}: the image is missing") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise anything on a broken file
        raise DataError(f"{where}: cannot be read as an image: {error or type(error).__name__}") from error


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or, whatever that is, by its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    import PIL.Image

    try:
        PIL.Image.open(path, formats=_formats()).close()
    except Exception:  # as above
        return False
    return True


def _check_size(image: Image, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{where}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted")


@cache
def _formats() -> list[str]:
    """``FORMATS`` that the installed Pillow supports."""
    import PIL.Image

    PIL.Image.init()
    return [name for name in FORMATS if name in PIL.Image.OPEN]


def _raw_mode(image: Image) -> str:
    """Layout of the pixels in the file, e.g. ``L;2`` or ``RGB;16B``; empty if unknown."""
    arguments = getattr(image, "tile", None) and image.tile[0][3]  # type: ignore[attr-defined]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _upright(image: Image) -> Image:
    # Not ImageOps.exif_transpose, which also rewrites the EXIF block and fails on a broken one. Pillow turns TIFF and
    # AVIF itself and drops their orientation when they are loaded.
    from PIL.Image import Transpose

    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a broken EXIF block turns nothing, as in every viewer
        return image
    return image if turn is None else image.transpose(Transpose[turn])


def _rgb(image: Image, raw_mode: str, where: str) -> Image:
    """On white where it is transparent. Raises DataError for a transparent colour that Pillow does not keep."""
    # Deep levels of grey; Pillow reads 16-bit colour as 8-bit RGB.
    if image.mode.startswith(("I", "F")):
        return _from_deep(image, where)
    if not image.has_transparency_data:
        return image.convert("RGB")
    import PIL.Image

    colour = image.info.get("transparency")
    if image.mode == "RGB" and ";16" in raw_mode:
        raise DataError(
            f"{where}: has 16 bits a channel and a transparent colour; save it with an alpha channel instead"
        )
    if image.mode == "L" and isinstance(colour, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[raw_mode]  # Pillow scales the pixels alone
    # Mode La, with its levels multiplied by alpha, converts to LA alone.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    on_white = PIL.Image.new("RGB", rgba.size, _WHITE)
    on_white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return on_white


def _from_deep(image: Image, where: str) -> Image:
    """16 bits a channel scaled to 8 (Pillow's conversion clips to white). Raises DataError where the range of the
    values is unknown or hardly used: how to show such data is the user's choice."""
    import numpy as np
    import PIL.Image

    if not image.mode.startswith("I;16") and image.format != "PPM":
        raise DataError(f"{where}: has pixels of 32 bits (mode {image.mode}) and no stated range; scale it to 8 bits")
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


class FolderSettings(DataSettings):
    """Settings of data sets with files below a folder."""

    SOURCE: ClassVar[str] = ""
    """Where to get the data, with their licence; for the error of a user who lacks them."""
    LAYOUT: ClassVar[str] = ""
    """The tree expected below the root, one path per line."""

    follow_links: Annotated[bool, LocalPathMark()] = False
    """Follow symbolic links that lead out of the folder of the images, e.g. to where the images really lie; without it
    they are an error. Where files lie cannot change a result, so it is no part of a cell's identity."""

    def remedy(self, root: Path) -> str:
        """Where to get the data and which layout is expected, several lines."""
        tree = "\n".join(f"    {line}" for line in self.LAYOUT.strip().splitlines())
        return (
            f"  where to get {self.name}: {self.SOURCE}\n"
            f"  expected in {root} (another folder: --set data.root=FOLDER):\n{tree}\n"
            "  without it: python run_bench.py SPEC --scale demo"
        )

    def not_found(self, root: Path, problem: str) -> DataError:
        """Error for a folder that lacks something."""
        return DataError(f"data set {self.name}: {root}: {problem}\n{self.remedy(root)}")


class DrawnSplitSettings(FolderSettings):
    """Settings of data sets that may come without a split to test on."""

    test_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the examples in the split ``test``; the rest is ``train``. Chosen by the hash of the image's name or,
    without images, of the text, so that neither is in both splits. Null: the data come in splits."""
    test_seed: int | None = None
    """Draw the share with this seed, from each class alike where there are labels. Null: by the hash alone, so that no
    example changes sides when others are added."""

    @model_validator(mode="after")
    def _check_seed(self) -> Self:
        if self.test_seed is not None and self.test_share is None:
            raise ValueError("test_seed goes with `test_share`")
        return self


def open_folder(
    splits: Mapping[str, Sequence[Example]],
    images: Path,
    annotations: Sequence[Path],
    remedy: str,
    *,
    follow_links: bool = False,
    published: str | None = None,
    notes: Notes | None = None,
) -> DataSet:
    """A data set of annotation files and a folder of images, which are opened on demand.

    ``remedy`` ends the error about missing files; ``published``: see ``files_digest``.
    """
    kept = Notes() if notes is None else notes

    def image(example: Example) -> Image:
        path = image_path(images, example.image_name, follow_links=follow_links)
        return decode_image(path, f"{path} (question {example.question_id})", kept)

    def digest() -> str:
        names = {e.image for split in splits.values() for e in split if e.image is not None}
        return files_digest(annotations, images, names, remedy, published=published)

    def image_digests(names: Sequence[str]) -> list[str]:
        return _hashes(images, list(names), "images", remedy)

    return DataSet(splits=splits, image=image, digest=digest, image_digests=image_digests, kept_notes=kept)


def files_digest(
    annotations: Iterable[Path], images: Path, names: Iterable[str], remedy: str, *, published: str | None = None
) -> str:
    """SHA-256 over the bytes of the annotation files and the names and contents of the images.

    ``published``: SHA-256 over the names and SHA-256 of published images. Raises DataError if files are missing: how
    many, and the first.
    """
    sha = hashlib.sha256()
    for path in annotations:
        sha.update(bytes.fromhex(_hashes(path.parent, [path.name], "annotation files", remedy)[0]))
    ordered = sorted(names)
    for name in ordered:
        check_image_name(images, name)
    contents = dict(zip(ordered, _hashes(images, ordered, "images", remedy), strict=True))
    if published == hashlib.sha256(_listed(contents)).hexdigest():
        # Stored records of published images hold a digest over names and sizes: it stays valid.
        contents = {name: str((images / name).stat().st_size) for name in ordered}
    sha.update(_listed(contents))
    return sha.hexdigest()


def _listed(values: Mapping[str, str]) -> bytes:
    return "".join(f"{name}\0{value}\n" for name, value in values.items()).encode()


def _hashes(root: Path, names: Sequence[str], what: str, remedy: str) -> list[str]:
    try:
        return sha256_of_all(root, names)
    except MissingFilesError as error:
        first = root / error.names[0]
        problem = "not readable" if first.exists() else "missing"
        raise DataError(
            f"{len(error.names)} of {len(names)} {what} are {problem}; the first is {first}\n{remedy}"
        ) from None


def first_existing(folder: Path, names: Iterable[str]) -> Path | None:
    """Path of the first of ``names`` in ``folder``; null if there is none."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def image_path(root: Path, name: str, *, follow_links: bool = False) -> Path:
    """Path of an image. Raises DataError if the name leads out of ``root``: absolute, by ``..``, or by a symbolic link
    without ``follow_links``."""
    check_image_name(root, name)
    path = root / name
    if not follow_links and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path} is a link that leads out of the image folder {root}; put the file itself there, or set "
            "`data.follow_links: true`"
        )
    return path


def check_image_name(root: Path, name: str) -> None:
    """Raise DataError for a name that cannot be a path below ``root``; touches no file."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise DataError(f"image name {name!r} leads out of the image folder {root}")

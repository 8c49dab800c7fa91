"""Reading annotation files and images that somebody else made: every problem names the file and the record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bench.errors import DataError
from bench.protocols import Example
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded (Pillow itself only warns at up to 179 million pixels)."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")


class ImageFolder:
    """Examples in memory, images opened when asked for: the usual ``VqaData``."""

    def __init__(self, splits: Mapping[str, Sequence[Example]], image_root: Path) -> None:
        self._splits = splits
        self._image_root = image_root

    def split(self, name: str) -> Sequence[Example]:
        """See ``VqaData.split``."""
        if name not in self._splits:
            raise DataError(f"unknown split {name!r}{did_you_mean(name, tuple(self._splits))}")
        return self._splits[name]

    def image(self, example: Example) -> Image:
        """See ``VqaData.image``."""
        return open_image(image_path(self._image_root, example.image), example.question_id)

    def texts(self) -> Sequence[str]:
        """See ``VqaData.texts``."""
        return texts_of(example for examples in self._splits.values() for example in examples)


def texts_of(examples: Iterable[Example]) -> list[str]:
    """All different questions and answers, sorted."""
    return sorted({text for example in examples for text in (*example.questions, example.answer)})


def read_json(path: Path) -> list[Any]:
    """The records of a JSON array, or of a file with one JSON object per line.

    Raises DataError that names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    try:
        records = json.loads(text) if text.lstrip().startswith("[") else _json_lines(path, text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not records:
        raise DataError(f"{path}: holds no records")
    assert isinstance(records, list)
    return records


def _json_lines(path: Path, text: str) -> list[Any]:
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}:{error.colno}: not valid JSON: {error.msg}") from error
    return records


def image_path(root: Path, name: str) -> Path:
    """Where the image lies. Raises DataError if the name leads out of ``root`` (absolute, ``..``, symbolic link)."""
    check_image_name(root, name)
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path} is a link that leads out of the image folder {root}; put the file itself there")
    return path


def check_image_name(root: Path, name: str) -> None:
    """Raises DataError for a name that cannot be a path below ``root``; touches no file."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise DataError(f"image name {name!r} leads out of the image folder {root}")


def open_image(path: Path, question_id: str) -> Image:
    """Decode to RGB. Raises DataError that names file and question: missing, truncated, too large, no image."""
    import PIL.Image

    where = f"{path} (question {question_id})"
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{where}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are accepted")
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{where}: has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"{where}: the image is missing") from error
    except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"{where}: cannot be read as an image: {error}") from error


def digest(annotations: Iterable[Path], image_root: Path, images: Iterable[str]) -> str:
    """SHA-256 over the annotation files' bytes and the images' names and sizes (their contents would take too long).

    Raises DataError if images are missing: how many, and the first of them.
    """
    sha = hashlib.sha256()
    for path in annotations:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    names = sorted(set(images))
    missing = []
    for name in names:
        check_image_name(image_root, name)
        try:
            sha.update(f"{name}\0{(image_root / name).stat().st_size}\n".encode())
        except OSError:
            missing.append(name)
    if missing:
        raise DataError(f"{len(missing)} of {len(names)} images are missing; the first is {image_root / missing[0]}")
    return sha.hexdigest()

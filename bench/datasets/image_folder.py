"""Images sorted into one folder per class, as torchvision's ImageFolder and Hugging Face's imagefolder read them.

``root/<split>/<class>/<image>``, or, with ``test_share``, ``root/<class>/<image>``. Folders below a class belong to
it. Hidden files and folders, and files that are no images by their suffix, are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.datasets import _files, _splits
from bench.errors import DataError
from bench.protocols import Example
from bench.registry import did_you_mean
from bench.settings import DataSettings, LocalPath

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""In any case."""


class ImageFolderSettings(DataSettings):
    """``root/<split>/<class>/<image>``, or ``root/<class>/<image>`` with ``test_share``."""

    name: Literal["image_folder"]
    root: LocalPath
    """Folder with one folder per split, or, with ``test_share``, per class."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the images that form the split ``test``, chosen by the hash of their names; the rest is ``train``. Null:
    ``root`` has a folder per split."""


Settings = ImageFolderSettings


def digest(settings: ImageFolderSettings) -> str:
    """See ``DataPlugin.digest``; of the images' names and contents."""
    return load(settings).digest()


def load(settings: ImageFolderSettings) -> _files.ImageFolder:
    """See ``DataPlugin.load``."""
    root = settings.root
    if not root.is_dir():
        raise DataError(
            f"data set {settings.name}: {root}: there is no such folder\n"
            f"  a relative path is looked up from the working directory, {Path.cwd()}\n"
            "  another folder: --set data.root=FOLDER"
        )
    splits: dict[str, Sequence[Example]] = {}
    if settings.test_share is None:
        for split in _splits.wanted(settings):
            splits[split] = list(_examples(root, _folder(root, split)))
    else:
        splits |= _splits.by_hash(_examples(root, root), settings.test_share, lambda example: example.question_id)
    return _files.ImageFolder(splits, images=root, annotations=[], remedy="  put the images back, or start again")


def _folder(root: Path, split: str) -> Path:
    """The folder of a split. Raises DataError that tells the two layouts apart."""
    known = _subfolders(root)
    if split not in known:
        raise DataError(
            f"{root}: has no folder for the split {split!r}{did_you_mean(split, known)}\n"
            "  expected: ROOT/<split>/<class>/<image>; name the splits with data.train_split and data.test_split\n"
            "  if these folders are the classes, set data.test_share, e.g. to 0.2: that share is kept for testing"
        )
    return root / split


def _examples(root: Path, folder: Path) -> Iterator[Example]:
    """The images of all classes in ``folder``, sorted. Raises DataError if there are none, or a class has none."""
    classes = _subfolders(folder)
    if not classes:
        raise DataError(f"{folder}: has no folders; expected one per class, with its images in it")
    for name in classes:
        images = sorted(path.relative_to(root).as_posix() for path in _images(folder / name))
        if not images:
            raise DataError(f"{folder / name}: the class has no images ({', '.join(SUFFIXES)})")
        for image in images:
            _check_text(image)
            yield Example(question_id=image, image=image, answer=name)


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name!a}: the name is not valid UTF-8; rename the file or folder") from error


def _images(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(parent) / name


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))

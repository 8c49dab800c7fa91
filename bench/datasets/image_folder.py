"""Images sorted into one folder per class, as torchvision's ImageFolder and Hugging Face's imagefolder read them.

``root/<split>/<class>/<image>``, or, with ``test_share``, ``root/<class>/<image>``. Folders below a class belong to
it. An image is what Pillow reads, whatever its suffix. Hidden files and folders, and files that are no images, are
passed over, and what is passed over is counted in the notes of a record.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bench.datasets.common import classes as _classes
from bench.datasets.common import files as _files
from bench.datasets.common import images as _images
from bench.datasets.common import splits as _splits
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import LocalPath
from bench.registry import did_you_mean

_OTHER = (
    "1 file was left out, as Pillow reads no image in it",
    "files were left out, as Pillow reads no image in them",
)
_HIDDEN = ("1 file was left out, as its name begins with a dot", "files were left out, as their names begin with a dot")
_BESIDE = (
    "1 image was left out, as it lies beside the folders of the classes",
    "images were left out, as they lie beside the folders of the classes",
)
_LINK = (
    "1 folder was left out, as it is a link (see data.follow_links)",
    "folders were left out, as they are links (see data.follow_links)",
)
"""Why something is passed over: of one file, and of several."""


class ImageFolderSettings(_files.FolderSettings):
    """``root/<split>/<class>/<image>``, or ``root/<class>/<image>`` with ``test_share``."""

    name: Literal["image_folder"]
    root: LocalPath
    """Folder with one folder per split, or, with ``test_share``, per class."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the images that form the split ``test``, chosen by the hash of their names; the rest is ``train``. Null:
    ``root`` has a folder per split."""
    test_seed: int | None = None
    """Draw the share by this seed, from each class alike. Null: by the hash alone, so that no image changes sides when
    others are added."""

    @model_validator(mode="after")
    def _agree(self) -> ImageFolderSettings:
        if self.test_seed is not None and self.test_share is None:
            raise ValueError("test_seed goes with `test_share`")
        return self


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
    search = _Search(root, settings.follow_links)
    if settings.test_share is None:
        for split in _splits.wanted(settings):
            splits[split] = list(search.examples(_folder(root, split)))
    else:
        splits |= _splits.shared(search.examples(root), settings.test_share, seed=settings.test_seed, by_class=True)
    remedy = "  put the images back, or start again"
    data = _files.ImageFolder(splits, images=root, annotations=[], remedy=remedy, follow_links=settings.follow_links)
    search.tell(data)
    _classes.note_classes(splits.values(), data.kept_notes)
    return data


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


@dataclass(frozen=True, slots=True)
class _Search:
    """Finds the images below ``root``, and keeps count of what it passes over."""

    root: Path
    follow_links: bool
    passed_over: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Why -> paths below ``root``."""

    def examples(self, folder: Path) -> Iterator[Example]:
        """The images of all classes in ``folder``, sorted. Raises DataError if there are none, or a class has none."""
        classes = _subfolders(folder)
        if not classes:
            raise DataError(f"{folder}: has no folders; expected one per class, with its images in it")
        for entry in os.scandir(folder):
            if entry.is_file() and not entry.name.startswith(".") and _images.is_image(Path(entry.path)):
                self._pass_over(_BESIDE, Path(entry.path))
        for name in classes:
            images = sorted(path.relative_to(self.root).as_posix() for path in self._images(folder / name))
            if not images:
                raise DataError(f"{folder / name}: the class has no images, of none of the kinds that Pillow reads")
            for image in images:
                _check_text(image)
                yield Example(question_id=image, image=image, answer=name)

    def tell(self, data: _files.ImageFolder) -> None:
        """Note what was passed over: why, how many files, and of which suffixes."""
        for (one, several), names in self.passed_over.items():
            kinds = Counter(Path(name).suffix.lower() or "without suffix" for name in sorted(names))
            told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
            why = one if len(names) == 1 else f"{len(names):,} {several}"
            data.kept_notes.add(f"{why}: {told}", min(names))

    def _images(self, folder: Path) -> Iterator[Path]:
        seen = {folder.resolve()}
        for parent, folders, files in os.walk(folder, followlinks=self.follow_links):
            folders[:] = [name for name in folders if self._enters(Path(parent) / name, seen)]
            for name in files:
                path = Path(parent) / name
                if name.startswith("."):
                    if path.suffix.lower() in _images.SUFFIXES and not name.startswith("._"):
                        self._pass_over(_HIDDEN, path)
                elif _images.is_image(path):
                    yield path
                else:
                    self._pass_over(_OTHER, path)

    def _enters(self, folder: Path, seen: set[Path]) -> bool:
        """Whether to look into a folder below a class: not twice, however often links lead there."""
        if folder.name.startswith("."):
            return False
        if not folder.is_symlink():
            return True
        if not self.follow_links:
            self._pass_over(_LINK, folder)
            return False
        target = folder.resolve()
        circles = any(known.is_relative_to(target) or target.is_relative_to(known) for known in seen)
        seen.add(target)
        return not circles

    def _pass_over(self, why: tuple[str, str], path: Path) -> None:
        self.passed_over.setdefault(why, []).append(path.relative_to(self.root).as_posix())


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name!a}: the name is not valid UTF-8; rename the file or folder") from error


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))

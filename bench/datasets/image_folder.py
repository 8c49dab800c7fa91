"""Images sorted into one folder per class, as torchvision's ImageFolder and Hugging Face's imagefolder read them.

``root/<split>/<class>/<image>``, or, with ``test_share``, ``root/<class>/<image>``. Folders below a class belong to
it. An image is what Pillow reads, whatever its suffix. Hidden files and folders, and files that are not images,
are skipped; a note of the record counts them.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.datasets.common.dataset import DataSet, Notes, draw_split, note_classes, splits_in_use
from bench.datasets.common.images import SUFFIXES, DrawnSplitSettings, is_image, open_folder
from bench.errors import DataError
from bench.plugins import Example, LocalPath
from bench.registry import did_you_mean

_Skipped = defaultdict[str, list[str]]
"""Reason -> paths below the root of the files that were skipped for it."""
_NO_IMAGE, _HIDDEN = "Pillow reads no image in it", "its name begins with a dot"
_BESIDE, _LINK = "it is beside the folders of the classes", "it is a link to a folder (see data.follow_links)"


class ImageFolderSettings(DrawnSplitSettings):
    """``root/<split>/<class>/<image>``, or ``root/<class>/<image>`` with ``test_share``."""

    name: Literal["image_folder"]
    root: LocalPath
    """Folder with one folder per split, or, with ``test_share``, per class."""


Settings = ImageFolderSettings


def digest(settings: ImageFolderSettings) -> str:
    """SHA-256 over the images' names and contents."""
    return load(settings).digest()


def load(settings: ImageFolderSettings) -> DataSet:
    """The splits in use. Raises DataError for another layout, and for a class without images."""
    root = settings.root
    if not root.is_dir():
        raise DataError(
            f"data set {settings.name}: {root}: there is no such folder\n"
            f"  a relative path is looked up from the working directory, {Path.cwd()}\n"
            "  another folder: --set data.root=FOLDER"
        )
    skipped: _Skipped = defaultdict(list)
    splits: Mapping[str, Sequence[Example]]
    if settings.test_share is None:
        used = splits_in_use(settings)
        splits = {split: list(_examples(settings, _split_folder(root, split), skipped)) for split in used}
    else:
        examples = _examples(settings, root, skipped)
        splits = draw_split(examples, settings.test_share, seed=settings.test_seed, by_class=True)
    notes = Notes()
    for reason, names in skipped.items():
        kinds = Counter(Path(name).suffix.lower() or "without suffix" for name in sorted(names))
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
        notes.add(f"left out, as {reason}: {len(names):,} ({counts})", min(names))
    note_classes(splits.values(), notes)
    remedy = "  put the images back, or start again"
    return open_folder(splits, root, [], remedy, follow_links=settings.follow_links, notes=notes)


def _split_folder(root: Path, split: str) -> Path:
    """The folder of a split. Raises DataError that explains both layouts."""
    known = _subfolders(root)
    if split not in known:
        raise DataError(
            f"{root}: has no folder for the split {split!r}{did_you_mean(split, known)}\n"
            "  expected: ROOT/<split>/<class>/<image>; name the splits with data.train_split and data.test_split\n"
            "  if these folders are the classes, set data.test_share, e.g. to 0.2: that share is kept for testing"
        )
    return root / split


def _examples(settings: ImageFolderSettings, folder: Path, skipped: _Skipped) -> Iterator[Example]:
    """Images of all classes in ``folder``, sorted. Raises DataError if a class has none, or there is no class."""
    root, classes = settings.root, _subfolders(folder)
    if not classes:
        raise DataError(f"{folder}: has no folders; expected one per class, with its images in it")
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith(".") and is_image(path):
            skipped[_BESIDE].append(path.relative_to(root).as_posix())
    for name in classes:
        found: list[str] = []
        for path, reason in _files(folder / name, follow_links=settings.follow_links):
            (skipped[reason] if reason else found).append(path.relative_to(root).as_posix())
        if not found:
            raise DataError(f"{folder / name}: the class has no images, of none of the kinds that Pillow reads")
        for image in sorted(found):
            try:
                image.encode()  # the name becomes text of records, which are UTF-8
            except UnicodeEncodeError as error:
                raise DataError(f"{image!a}: the name is not valid UTF-8; rename the file or folder") from error
            yield Example(question_id=image, image=image, answer=name)


def _files(folder: Path, *, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """Files below a class, each with the reason to skip it; empty for an image."""
    entered = {folder.resolve()}
    for parent, folders, files in os.walk(folder, followlinks=follow_links):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in [Path(parent, name) for name in folders]:
            if not path.is_symlink():
                continue
            target = path.resolve()
            circular = any(known.is_relative_to(target) or target.is_relative_to(known) for known in entered)
            if not follow_links:
                yield path, _LINK
            if circular or not follow_links:  # a folder is entered once, however many links lead there
                folders.remove(path.name)
            entered.add(target)
        for path in [Path(parent, name) for name in files]:
            if not path.name.startswith("."):
                yield path, "" if is_image(path) else _NO_IMAGE
            # macOS writes ``._photo.jpg`` beside ``photo.jpg``: metadata, which need no note.
            elif path.suffix.lower() in SUFFIXES and not path.name.startswith("._"):
                yield path, _HIDDEN


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))

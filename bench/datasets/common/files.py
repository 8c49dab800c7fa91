"""Annotation files and images that somebody else made: every problem names the file, and the question or record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from bench import files
from bench.datasets.common import images as _images
from bench.datasets.common.notes import Notes
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings, LocalPathMark
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image


class FolderSettings(DataSettings):
    """What data sets with files below a folder have in common."""

    follow_links: Annotated[bool, LocalPathMark()] = False
    """Follow symbolic links that lead out of the folder of the images, e.g. to where the images really lie; without it
    they are an error. Where files lie cannot change a result, so it is no part of a cell's identity."""


class Splits:
    """The part of ``OpenedData`` that is the same for all data sets whose questions fit into memory."""

    def __init__(self, splits: Mapping[str, Sequence[Example]], notes: Notes | None = None) -> None:
        self._splits = splits
        self.kept_notes = Notes() if notes is None else notes

    def notes(self) -> Sequence[str]:
        """See ``OpenedData``."""
        return self.kept_notes.texts()

    def split(self, name: str) -> Sequence[Example]:
        """See ``OpenedData.split``."""
        if name not in self._splits:
            raise DataError(f"unknown split {name!r}{did_you_mean(name, tuple(self._splits))}")
        return self._splits[name]

    def texts(self) -> Sequence[str]:
        """See ``OpenedData.texts``."""
        examples = (example for split in self._splits.values() for example in split)
        return sorted({text for e in examples for text in (*e.questions, e.answer, e.text_pair) if text is not None})


def examples_text(splits: Mapping[str, Sequence[Example]]) -> str:
    """All examples, for a digest: fields that ``Example`` got later are in it only where they are set, so that records
    of earlier versions stay valid."""
    return f"[{', '.join(f'({name!r}, [{_texts(splits[name])}])' for name in sorted(splits))}]"


def _texts(examples: Sequence[Example]) -> str:
    return ", ".join(map(_text, examples))


def _text(example: Example) -> str:
    first = ("question_id", "image", "questions", "answer", "answer_type")
    later = [f.name for f in fields(example) if f.name not in first and getattr(example, f.name) != f.default]
    return f"Example({', '.join(f'{name}={getattr(example, name)!r}' for name in (*first, *later))})"


class ImageFolder(Splits):
    """``OpenedData`` on annotation files and a folder of images, which are opened when asked for."""

    def __init__(
        self,
        splits: Mapping[str, Sequence[Example]],
        *,
        images: Path,
        annotations: Sequence[Path],
        remedy: str,
        published: str | None = None,
        follow_links: bool = False,
        notes: Notes | None = None,
    ) -> None:
        """``published``: see ``files_digest``."""
        super().__init__(splits, notes)
        self.images = images
        self.follow_links = follow_links
        self._annotations = annotations
        self._remedy = remedy
        self._published = published

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        path = image_path(self.images, example.image_name, follow_links=self.follow_links)
        return _images.open_image(path, example.question_id, self.kept_notes)

    def image_digests(self, names: Sequence[str]) -> list[str]:
        """See ``OpenedData``."""
        return _hashes(self.images, list(names), "images", self._remedy)

    def digest(self) -> str:
        """See ``files_digest``."""
        names = {example.image_name for split in self._splits.values() for example in split}
        return files_digest(self._annotations, self.images, names, self._remedy, published=self._published)


def files_digest(
    annotations: Iterable[Path], images: Path, names: Iterable[str], remedy: str, *, published: str | None = None
) -> str:
    """SHA-256 over the annotation files' bytes and the images' names and contents.

    ``published`` is the ``contents_digest`` of the images that everybody has. Of these, known by their contents, names
    and sizes are taken instead, as earlier versions did of all images, so that their records stay valid.
    Raises DataError if files are missing: how many, and the first of them.
    """
    sha = hashlib.sha256()
    for path in annotations:
        sha.update(bytes.fromhex(_hashes(path.parent, [path.name], "annotation files", remedy)[0]))
    ordered = sorted(names)
    for name in ordered:
        check_image_name(images, name)
    listed = list(zip(ordered, _hashes(images, ordered, "images", remedy), strict=True))
    if published is not None and contents_digest(listed) == published:
        sha.update("".join(f"{name}\0{(images / name).stat().st_size}\n" for name in ordered).encode())
    else:
        sha.update("".join(f"{name}\0{own}\n" for name, own in listed).encode())
    return sha.hexdigest()


def contents_digest(listed: Iterable[tuple[str, str]]) -> str:
    """SHA-256 (hex) over names and the SHA-256 of what they stand for."""
    return hashlib.sha256("".join(f"{name}\0{own}\n" for name, own in listed).encode()).hexdigest()


def _hashes(root: Path, names: Sequence[str], what: str, remedy: str) -> list[str]:
    try:
        return files.sha256_of_all(root, names)
    except files.MissingFilesError as error:
        first = root / error.names[0]
        how = "not readable" if first.exists() else "missing"
        raise DataError(
            f"{len(error.names)} of {len(names)} {what} are {how}; the first is {first}\n{remedy}"
        ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where a data set of files comes from and how it must lie, for the error of a user who lacks it."""

    name: str
    source: str
    """Address and licence."""
    layout: str
    """Tree below the root, one path per line."""

    def remedy(self, root: Path) -> str:
        """What to do next, several lines."""
        tree = "\n".join(f"    {line}" for line in self.layout.strip().splitlines())
        return (
            f"  where to get {self.name}: {self.source}\n"
            f"  expected in {root} (another folder: --set data.root=FOLDER):\n{tree}\n"
            "  without it: python run_bench.py SPEC --scale demo"
        )

    def missing(self, root: Path, problem: str) -> DataError:
        """The error to raise."""
        return DataError(f"data set {self.name}: {problem}\n{self.remedy(root)}")


def first_existing(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of ``names`` that is in ``folder``."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def read_json(path: Path) -> list[Any]:
    """The records of a JSON array, or of a file with one JSON value per line, whatever the file's suffix.

    Raises DataError that names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    numbered = [(1, text)] if text.lstrip().startswith("[") else enumerate(text.split("\n"), start=1)
    values = [_parse(path, number, part) for number, part in numbered if part.strip()]
    records = values[0] if text.lstrip().startswith("[") else values
    if not records:
        raise DataError(f"{path}: holds no records")
    assert isinstance(records, list)
    return records


def _parse(path: Path, first_line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(f"{path}:{line}:{error.colno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{first_line}: not valid JSON: {error}") from error


def image_path(root: Path, name: str, *, follow_links: bool = False) -> Path:
    """Where the image lies. Raises DataError if the name leads out of ``root``: absolute, by ``..``, or by a symbolic
    link without ``follow_links``."""
    check_image_name(root, name)
    path = root / name
    if not follow_links and not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path} is a link that leads out of the image folder {root}; put the file itself there, or set "
            "`data.follow_links: true`"
        )
    return path


def check_image_name(root: Path, name: str) -> None:
    """Raises DataError for a name that cannot be a path below ``root``; touches no file."""
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise DataError(f"image name {name!r} leads out of the image folder {root}")

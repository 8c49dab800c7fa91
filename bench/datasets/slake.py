"""SLAKE 1.0 (Liu et al., ISBI 2021): 642 radiology images, questions in English and Chinese, CC BY 4.0.

Splits: ``train``, ``validate`` and ``test``; in English 4,919, 1,053 and 1,061 questions.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from bench.datasets.common import files
from bench.datasets.common import records as _records
from bench.datasets.common.notes import Notes
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import LocalPath, LocalPathMark

if TYPE_CHECKING:
    from PIL.Image import Image

STEMS = {"train": ("train",), "validate": ("validate", "validation"), "test": ("test",)}
SUFFIXES = (".json", ".jsol", ".jsonl")
MANIFEST = "images.sha256.tsv"
WHERE = files.Where(
    name="slake",
    source="https://www.med-vqa.com/slake/ (CC BY 4.0), file Slake1.0.zip",
    layout=f"""
train.json  validate.json  test.json   (or slake_train.jsol, ... as in the released MILE code, whose
                                        records have no more than img_name, question, answer and qid)
imgs/xmlab0/source.jpg  imgs/xmlab1/source.jpg  ...
{MANIFEST}   (optional: img_name, sha256, bytes; separated by tabs)
""",
)

_CHINESE = re.compile("[\u4e00-\u9fff]")
Language = Literal["en", "zh", "all"]


class SlakeSettings(files.FolderSettings):
    """Local files in the official layout."""

    name: Literal["slake"]
    root: LocalPath = Path("data/slake")
    """Folder with the annotation files and ``imgs``, or the folder above it (``Slake1.0`` inside)."""
    language: Language = "en"
    """Which questions."""
    manifest: LocalPath | None = None
    """Table of the images' SHA-256 and sizes; without it, ``images.sha256.tsv`` in ``root`` if there is one."""
    verify: Annotated[Literal["sizes", "full", "off"], LocalPathMark()] = "sizes"
    """With a manifest. ``sizes``: all sizes at once, each SHA-256 when the image is first opened; ``full``: all
    SHA-256 at once; ``off``: nothing. It cannot change a result, so it is no part of a cell's identity."""


Settings = SlakeSettings


def digest(settings: SlakeSettings) -> str:
    """See ``DataPlugin.digest``."""
    return load(settings).digest()


def load(settings: SlakeSettings) -> files.ImageFolder:
    """See ``DataPlugin.load``."""
    root = settings.root / "Slake1.0" if (settings.root / "Slake1.0").is_dir() else settings.root
    annotations = _annotations(root)
    notes = Notes()
    splits = {split: _read(path, settings.language, notes) for split, path in annotations.items()}
    folder = VerifiedImages(
        splits,
        images=root / "imgs",
        annotations=list(annotations.values()),
        remedy=WHERE.remedy(settings.root),
        follow_links=settings.follow_links,
        notes=notes,
    )
    path = settings.manifest or (root / MANIFEST if (root / MANIFEST).exists() else None)
    if path is not None and settings.verify != "off":
        folder.verify(read_manifest(path), path, full=settings.verify == "full")
    return folder


def load_annotations(settings: SlakeSettings) -> files.ImageFolder:
    """As ``load``, images or no images."""
    return load(settings.model_copy(update={"verify": "off"}))


def _annotations(root: Path) -> dict[str, Path]:
    """Split -> file. Raises DataError if training or test questions are missing."""
    found: dict[str, Path] = {}
    for split, stems in STEMS.items():
        names = [prefix + stem + suffix for prefix in ("", "slake_") for stem in stems for suffix in SUFFIXES]
        path = files.first_existing(root, names)
        if path is not None:
            found[split] = path
        elif split != "validate":
            problem = f"there is no {split} file" if root.is_dir() else "there is no such folder"
            raise WHERE.missing(root, f"{root}: {problem}")
    return found


def _read(path: Path, language: Language, notes: Notes) -> Sequence[Example]:
    records = _records.records_of(str(path), files.read_json(path))
    if any("q_lang" not in record.fields for record in records):
        notes.add(f"{path.name} does not say the language of its questions: those with Chinese characters count as zh")
    if any("answer_type" not in record.fields for record in records):
        notes.add(f"{path.name} does not say which questions are open")
    return examples_of(str(path), records, language)


def examples_of(source: str, records: Sequence[_records.Record], language: Language) -> Sequence[Example]:
    """The questions in a language. One of the published training answers is empty, and stays so.

    The files of the released MILE code have no more than ``img_name``, ``question``, ``answer`` and ``qid``.
    """
    examples = [
        Example(
            question_id=record.text("qid"),
            image=record.text("img_name"),
            questions=(record.text("question"),),
            answer=record.text("answer", may_be_empty=True),
            answer_type=record.answer_type() if "answer_type" in record.fields else None,
        )
        for record in records
        if language in ("all", _language(record))
    ]
    if not examples:
        raise DataError(f"{source}: has no questions in the language {language!r}; see data.language")
    return _records.unique(source, examples)


def _language(record: _records.Record) -> str:
    if "q_lang" in record.fields:
        return record.text("q_lang")
    return "zh" if _CHINESE.search(record.text("question")) else "en"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A line of the manifest."""

    sha256: str
    size: int
    """Bytes."""


def read_manifest(path: Path) -> dict[str, Expected]:
    """Image name -> what it must be. Raises DataError that names file and line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    expected = {}
    for number, row in enumerate(rows, start=1):
        match row:
            case ["img_name", "sha256", "bytes"]:
                continue
            case [name, sha256, size] if len(sha256) == 64 and size.isascii() and size.isdigit():
                expected[name] = Expected(sha256=sha256.lower(), size=int(size))
            case _:
                raise DataError(f"{path}:{number}: expected img_name, sha256 and bytes, found {row!r:.100}")
    return expected


class VerifiedImages(files.ImageFolder):
    """Images that are compared with a manifest before they are used."""

    _expected: Mapping[str, Expected] = {}
    _manifest: Path | None = None

    def verify(self, expected: Mapping[str, Expected], manifest: Path, *, full: bool) -> None:
        """Compare the sizes, or with ``full`` the contents, of all images that questions need; from then on, each
        image's content when it is first opened. Raises DataError that names image and manifest."""
        self._manifest = manifest
        self._expected = dict(expected)
        self._unopened = {example.image_name for split in self._splits.values() for example in split}
        for name in sorted(self._unopened):
            self._check_size(name)
            if full:
                self._check_content(name)

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        if self._manifest is not None and example.image_name in self._unopened:
            self._check_content(example.image_name)
        return super().image(example)

    def _check_size(self, name: str) -> None:
        path = files.image_path(self.images, name, follow_links=self.follow_links)
        if name not in self._expected:
            raise DataError(f"{path}: is not listed in {self._manifest}")
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: the image is missing\n{self._remedy}") from error
        if size != self._expected[name].size:
            raise self._changed(path, f"{size:,} bytes instead of {self._expected[name].size:,}")

    def _check_content(self, name: str) -> None:
        path = files.image_path(self.images, name, follow_links=self.follow_links)
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"{path}: the image cannot be read: {error}") from error
        if sha256 != self._expected[name].sha256:
            raise self._changed(path, f"SHA-256 {sha256} instead of {self._expected[name].sha256}")
        self._unopened.discard(name)

    def _changed(self, path: Path, found: str) -> DataError:
        return DataError(
            f"{path}: is not the published image: {found} (by {self._manifest})\n"
            "  fetch it again, or, if you changed it on purpose, set `data.verify: off`"
        )

"""SLAKE 1.0 (Liu et al., ISBI 2021): 642 radiology images, questions in English and Chinese, CC BY 4.0.

Splits: ``train``, ``validate`` and ``test``; in English 4,919, 1,053 and 1,061 questions.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from bench.datasets.common.dataset import DataSet, Notes
from bench.datasets.common.images import FolderSettings, first_existing, image_path, open_folder
from bench.datasets.common.rows import SourceRow, read_records, unique
from bench.errors import DataError
from bench.plugins import Example, LocalPath
from bench.plugins.settings import LocalPathMark

if TYPE_CHECKING:
    from PIL.Image import Image

STEMS = {"train": ("train",), "validate": ("validate", "validation"), "test": ("test",)}
MANIFEST = "images.sha256.tsv"
_CHINESE = re.compile("[\u4e00-\u9fff]")
Language = Literal["en", "zh", "all"]


class SlakeSettings(FolderSettings):
    """Local files in the official layout."""

    SOURCE: ClassVar[str] = "https://www.med-vqa.com/slake/ (CC BY 4.0), file Slake1.0.zip"
    LAYOUT: ClassVar[str] = f"""
train.json  validate.json  test.json   (or slake_train.jsol, ... as in the released MILE code, whose
                                        records have no more than img_name, question, answer and qid)
imgs/xmlab0/source.jpg  imgs/xmlab1/source.jpg  ...
{MANIFEST}   (optional: img_name, sha256, bytes; separated by tabs)
"""

    name: Literal["slake"]
    root: LocalPath = Path("data/slake")
    """Folder with the annotation files and ``imgs``, or the folder above it (``Slake1.0`` inside)."""
    language: Language = "en"
    """Language of the questions."""
    manifest: LocalPath | None = None
    """Table of the images' SHA-256 and sizes; without it, ``images.sha256.tsv`` in ``root`` if there is one."""
    verify: Annotated[Literal["sizes", "full", "off"], LocalPathMark()] = "sizes"
    """With a manifest. ``sizes``: all sizes at once, each SHA-256 when the image is first opened; ``full``: all
    SHA-256 at once; ``off``: nothing. It cannot change a result, so it is no part of a cell's identity."""


Settings = SlakeSettings


def digest(settings: SlakeSettings) -> str:
    """SHA-256 over annotations and images."""
    return load(settings).digest()


def load(settings: SlakeSettings) -> DataSet:
    """The splits that are there. Raises DataError for missing files, broken records and images that are not those of
    the manifest."""
    root = settings.root / "Slake1.0" if (settings.root / "Slake1.0").is_dir() else settings.root
    notes = Notes()
    annotations = _annotations(settings, root)
    splits = {split: _read(path, settings.language, notes) for split, path in annotations.items()}
    paths, remedy, follow = list(annotations.values()), settings.remedy(settings.root), settings.follow_links
    data = open_folder(splits, root / "imgs", paths, remedy, follow_links=follow, notes=notes)
    manifest = settings.manifest or first_existing(root, [MANIFEST])
    if manifest is not None and settings.verify != "off":
        _verify(data, settings, root / "imgs", manifest)
    return data


def load_annotations(settings: SlakeSettings) -> DataSet:
    """The data set without a look at its images, which may be missing."""
    return load(settings.model_copy(update={"verify": "off"}))


def _annotations(settings: SlakeSettings, root: Path) -> dict[str, Path]:
    """Split -> file. Raises DataError if training or test questions are missing."""
    found: dict[str, Path] = {}
    for split, stems in STEMS.items():
        suffixes = (".json", ".jsol", ".jsonl")
        names = [prefix + stem + suffix for prefix in ("", "slake_") for stem in stems for suffix in suffixes]
        path = first_existing(root, names)
        if path is not None:
            found[split] = path
        elif split != "validate":
            raise settings.not_found(root, f"there is no {split} file" if root.is_dir() else "there is no such folder")
    return found


def _read(path: Path, language: Language, notes: Notes) -> Sequence[Example]:
    rows = read_records(path)
    # The files of the released MILE code have no more than img_name, question, answer and qid.
    if any("q_lang" not in row.fields for row in rows):
        notes.add(f"{path.name} does not say the language of its questions: those with Chinese characters count as zh")
    if any("answer_type" not in row.fields for row in rows):
        notes.add(f"{path.name} does not say which questions are open")
    return examples_of(str(path), rows, language)


def examples_of(source: str, rows: Sequence[SourceRow], language: Language) -> Sequence[Example]:
    """Questions in a language. Raises DataError if there are none."""
    chosen = [row for row in rows if language in ("all", _language(row))]
    if not chosen:
        raise DataError(f"{source}: has no questions in the language {language!r}; see data.language")
    return unique(((row, _example(row)) for row in chosen), "qid")


def _example(row: SourceRow) -> Example:
    return Example(
        question_id=row.words("qid"),
        image=row.words("img_name"),
        questions=(row.words("question"),),
        # One of the published training answers is empty, and stays so.
        answer=row.words("answer", required=not isinstance(row.fields.get("answer"), str)),
        answer_type=row.answer_type("answer_type") if "answer_type" in row.fields else None,
    )


def _language(row: SourceRow) -> str:
    if "q_lang" in row.fields:
        return row.words("q_lang")
    return "zh" if _CHINESE.search(row.words("question")) else "en"


def read_manifest(path: Path) -> dict[str, tuple[str, int]]:
    """Image name -> SHA-256 (hex) and size in bytes. Raises DataError that names file and line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
    expected = {}
    for number, line in enumerate(lines, start=1):
        match line:
            case ["img_name", "sha256", "bytes"]:
                continue
            case [name, sha256, size] if len(sha256) == 64 and size.isascii() and size.isdigit():
                expected[name] = sha256.lower(), int(size)
            case _:
                raise DataError(f"{path}:{number}: expected img_name, sha256 and bytes, found {line!r:.100}")
    return expected


def _verify(data: DataSet, settings: SlakeSettings, images: Path, manifest: Path) -> None:
    """Compare the sizes of all images that questions need and, at once or when each is first opened, their contents.

    Raises DataError that names image and manifest.
    """
    expected = read_manifest(manifest)
    unopened = {example.image_name for split in data.splits.values() for example in split}
    open_image = data.image

    def check(name: str, *, content: bool) -> None:
        path = image_path(images, name, follow_links=settings.follow_links)
        if name not in expected:
            raise DataError(f"{path}: is not listed in {manifest}")
        sha256, size = expected[name]
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest() if content else path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: the image cannot be read: {error}\n{settings.remedy(settings.root)}") from error
        if found != (sha256 if content else size):
            difference = f"SHA-256 {found} instead of {sha256}" if content else f"{found:,} bytes instead of {size:,}"
            raise DataError(
                f"{path}: is not the published image: {difference} (by {manifest})\n"
                "  fetch it again, or, if you changed it on purpose, set `data.verify: off`"
            )

    def image(example: Example) -> Image:
        if example.image_name in unopened:
            check(example.image_name, content=True)
            unopened.discard(example.image_name)
        return open_image(example)

    for name in sorted(unopened):
        check(name, content=False)
        if settings.verify == "full":
            check(name, content=True)
    if settings.verify == "full":
        unopened.clear()
    data.image = image

"""Which files the ``datasets`` library read for which split, which it left out, and what they say of their classes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.datasets.common import images as _images
from bench.errors import DataError

_NO_DATA = ("readme.md", "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "license")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_DECLARED = re.compile(r"^configs:", re.MULTILINE)
"""In the front matter of a README: its author said which files belong to which split."""


def files_of(builder: Any) -> dict[str, list[str]]:
    """Split -> files, as paths or addresses; empty where the library does not say."""
    return {str(split): [str(file) for file in files] for split, files in (builder.config.data_files or {}).items()}


def in_no_split(folder: str, builder: Any) -> list[str]:
    """A note about data files of a local folder that no split has.

    The library sorts files by words such as ``train`` and ``test`` in their names, and leaves out all others as soon as
    one has such a word. Raises DataError if images are lost so.
    """
    root = Path(folder)
    read = {Path(file).resolve() for files in files_of(builder).values() for file in files}
    readme = root / "README.md"
    declared = readme.is_file() and _DECLARED.search(readme.read_text(encoding="utf-8", errors="replace"))
    if not root.is_dir() or not read or declared:
        return []
    suffixes = {file.suffix.lower() for file in read if file.name.lower() not in _METADATA}
    of_images = bool(suffixes & _images.SUFFIXES)
    visible = _visible(root)
    files = [f for f in visible if f.resolve() in read or (_images.is_image(f) if of_images else f.suffix in suffixes)]
    lost = [file.relative_to(root) for file in files if file.resolve() not in read]
    by_name = sorted(file.as_posix() for file in lost if file.suffix.lower() in getattr(builder, "EXTENSIONS", ()))
    if by_name:
        raise DataError(
            f"{folder}: {len(by_name):,} of {len(files):,} files are in no split, e.g. {by_name[0]}: the library sorts "
            "files by words such as train, test, dev or val in their names as soon as one has such a word; rename "
            "those, put all files into the folders train/ and test/, or say which belong where: "
            "`data.data_files: {train: 'PATTERN', test: 'PATTERN'}`"
        )
    if not lost:
        return []
    first = min(file.as_posix() for file in lost)
    return [f"{len(lost):,} of {len(files):,} files are in no split and were not read (e.g. {first})"]


def without_row(found: Mapping[str, Sequence[str]], splits: Mapping[str, Any], builder: Any) -> Iterator[str]:
    """Notes about image files that became no row."""
    if "imagefolder" not in type(builder).__module__:
        return
    for split, files in found.items():
        paths = [Path(file) for file in files if Path(file).name.lower() not in _METADATA]
        images = [path for path in paths if path.is_file() and _images.is_image(path)]
        if len(images) == len(paths) and len(images) != len(splits[split]):
            yield f"of {len(images):,} image files of the split {split}, {len(splits[split]):,} became rows"


def class_names(files: Sequence[str], column: str) -> list[str] | None:
    """Names of the classes 0, 1, ... as a split's own Parquet files say them; null if they say none.

    The library takes those of the first file it sees for all splits. Raises DataError if files of the split disagree.
    """
    found: dict[tuple[str, ...], str] = {}
    for file in files:
        if file.endswith(".parquet"):
            names = _names_in(file, column)
            if names is not None:
                found.setdefault(tuple(names), file)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise DataError(
            f"column {column!r}: classes are {', '.join(one):.200} in {first}, but {', '.join(other):.200} in {second};"
            " write them with the same names in the same order"
        )
    return list(next(iter(found))) if found else None


def _names_in(file: str, column: str) -> list[str] | None:
    import datasets
    import pyarrow.parquet

    if "://" in file:
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(file, "rb") as stream:
            schema = pyarrow.parquet.read_schema(stream)
    else:
        schema = pyarrow.parquet.read_schema(file)
    return names_of(datasets.Features.from_arrow_schema(schema), column)


def names_of(features: Any, column: str) -> list[str] | None:
    """Names of the classes of a column, also of a nested one; null if it holds no classes."""
    from datasets import ClassLabel

    feature = features.get(column)
    if feature is None:
        feature = features
        for step in column.split("."):
            if isinstance(feature, dict):
                feature = feature.get(step)
            elif step.lstrip("-").isdigit():
                feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
            else:
                return None
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def state_of(folder: Path) -> str:
    """Changes when a file of a local folder does; empty for an id on the Hub."""
    if not folder.is_dir():
        return ""
    told = [(file.as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(_visible(folder))]
    return hashlib.sha256(repr(told).encode("utf-8", "surrogatepass")).hexdigest()


def _visible(root: Path) -> list[Path]:
    return [
        file
        for file in root.rglob("*")
        if file.is_file()
        and file.name.lower() not in _NO_DATA
        and not any(part.startswith((".", "__")) for part in file.relative_to(root).parts)
    ]

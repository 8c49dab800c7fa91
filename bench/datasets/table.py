"""Any table in files: CSV, TSV, JSON, JSON Lines or Parquet, with a mapping from columns to what an example needs.

Without images it holds texts (to classify, or prompts and answers); with a column of file names, images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bench.datasets.common.columns import Columns, ColumnSettings, Mapper
from bench.datasets.common.dataset import DataSet, Notes, draw_split, splits_in_use
from bench.datasets.common.images import DrawnSplitSettings, check_image_name, files_digest, open_folder
from bench.datasets.common.rows import SourceRow, read_rows
from bench.errors import DataError
from bench.plugins import Example, LocalPath
from bench.registry import did_you_mean


class TableColumns(Columns):
    """Columns of the values and, if one file holds all splits, of the split's name."""

    split: str | None = None
    """Column of the split's name; goes with ``file``."""


class TableSettings(DrawnSplitSettings, ColumnSettings):
    """``files``, one for each split; or one ``file`` with a column ``split`` or with ``test_share``."""

    name: Literal["table"]
    columns: TableColumns
    files: dict[str, LocalPath] | None = None
    """Split -> file; the suffix names its format: ``.csv``, ``.tsv``, ``.json``, ``.jsonl`` or ``.parquet``."""
    file: LocalPath | None = None
    """One file for all splits."""
    image_root: LocalPath | None = None
    """Folder of the images; null for the folder of the table."""
    encoding: str = "utf-8"
    """Encoding of CSV and TSV files, e.g. ``latin-1``, ``utf-16``."""
    delimiter: str | None = Field(default=None, pattern=r'^[^\r\n"]$')
    """Character between columns; null: a comma or, in a TSV file, a tab."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if (self.file is None) == (self.files is None):
            raise ValueError("needs either `files`, e.g. {train: a.csv, test: b.csv}, or one `file`")
        parted = (self.columns.split is not None) + (self.test_share is not None)
        if self.file is not None and parted != 1:
            raise ValueError("one `file` needs exactly one of columns.split and `test_share`, e.g. `test_share: 0.2`")
        if self.files is not None:
            if parted:
                raise ValueError("columns.split and test_share go with one `file`, not with `files`")
            absent = [split for split in splits_in_use(self) if split not in self.files]
            if absent:
                raise ValueError(f"`files` has none for the split {absent[0]!r}; add it, or correct the split's name")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"{error}; e.g. utf-8, latin-1, cp1252, utf-16") from error
        return self


Settings = TableSettings


def digest(settings: TableSettings) -> str:
    """SHA-256 over the files' contents, and the images' names and contents."""
    if settings.columns.image is not None:
        return load(settings).digest()
    return files_digest(_paths(settings).values(), Path(), (), "")


def load(settings: TableSettings) -> DataSet:
    """The splits in use. Raises DataError that names file and line of a broken table."""
    paths = _paths(settings)
    tables = list(paths.values())
    root = _image_root(settings, tables)
    notes = Notes()
    mapper = Mapper(settings, notes)
    splits: dict[str, Sequence[Example]] = {}
    for name, path in paths.items():
        rows = read_rows(path, encoding=settings.encoding, delimiter=settings.delimiter)
        mapper.check(str(path), list(dict.fromkeys(column for row in rows for column in row.fields)))
        image = _image_names(settings, path, root)
        parts = {name: rows} if settings.columns.split is None else _by_split(settings, path, rows)
        splits |= {split: mapper.examples(str(path), part, image=image) for split, part in parts.items()}
    if settings.test_share is not None:
        (examples,) = splits.values()
        by_class = settings.columns.label is not None
        splits = draw_split(examples, settings.test_share, seed=settings.test_seed, by_class=by_class)
    mapper.finish(", ".join(map(str, tables)), splits)
    remedy = "  their names are looked up below data.image_root, without it below the table's own folder"
    return open_folder(splits, root, tables, remedy, follow_links=settings.follow_links, notes=notes)


def _paths(settings: TableSettings) -> Mapping[str, Path]:
    """Split -> file to read; a file for all splits under the empty name. Raises DataError for an absent file."""
    # In the order of the splits: the digest is one over the files in this order.
    named = settings.files or {}
    paths = {"": settings.file} if settings.file else {split: named[split] for split in splits_in_use(settings)}
    for path in paths.values():
        if not path.is_file():
            raise DataError(
                f"data set {settings.name}: {path}: there is no such file\n"
                f"  a relative path is looked up from the working directory, {Path.cwd()}"
            )
    return paths


def _image_root(settings: TableSettings, paths: Sequence[Path]) -> Path:
    """``image_root``, else the folder that holds all tables."""
    if settings.image_root is not None:
        return settings.image_root
    folders = {path.parent for path in paths}
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath([path.absolute() for path in folders]))


def _image_names(settings: TableSettings, path: Path, root: Path) -> Callable[[SourceRow, Any], str]:
    """Function from a row and the name of a file to the path of the image below ``root``."""
    column = str(settings.columns.image)
    above = path.parent.absolute().relative_to(root.absolute()) if settings.image_root is None else Path()

    def image(row: SourceRow, value: Any) -> str:
        if not isinstance(value, str):
            hint = "; a table that holds the images themselves is read by `data: {name: hub}`"
            raise row.error(column, f"must be the name of a file{hint if isinstance(value, Mapping) else ''}")
        try:
            check_image_name(root / above, value)
        except DataError as error:
            raise row.error(column, str(error)) from error
        return (above / value).as_posix()

    return image


def _by_split(settings: TableSettings, path: Path, rows: Sequence[SourceRow]) -> Mapping[str, Sequence[SourceRow]]:
    """The rows of each split in use, by ``columns.split``."""
    column = str(settings.columns.split)
    groups: dict[str, list[SourceRow]] = {}
    for row in rows:
        groups.setdefault(str(row.fields.get(column)).strip(), []).append(row)
    for split in splits_in_use(settings):
        if split not in groups:
            hint = did_you_mean(split, list(groups))
            raise DataError(f"{path}: column {column!r} has no row of the split {split!r}{hint}")
    return {split: groups[split] for split in splits_in_use(settings)}

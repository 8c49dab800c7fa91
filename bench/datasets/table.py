"""Any table in files: CSV, TSV, JSON, JSON Lines or Parquet, with a mapping from columns to what an example needs.

Without images it holds texts (to classify, or prompts and answers); with a column of file names, images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.datasets.common import classes
from bench.datasets.common import columns as _columns
from bench.datasets.common import files as _files
from bench.datasets.common import rows as _rows
from bench.datasets.common import splits as _splits
from bench.datasets.common.notes import Notes
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import LocalPath
from bench.registry import did_you_mean


class TableColumns(_columns.Columns):
    """Which column holds what, and, of one file for all splits, which split a row belongs to."""

    split: str | None = None
    """Name of the split; with ``file``."""


class TableSettings(_files.FolderSettings, _columns.ColumnSettings):
    """``files``, one for each split; or one ``file`` with a column ``split`` or with ``test_share``."""

    name: Literal["table"]
    columns: TableColumns
    files: dict[str, LocalPath] | None = None
    """Split -> file; the suffix says what it is: ``.csv``, ``.tsv``, ``.json``, ``.jsonl`` or ``.parquet``."""
    file: LocalPath | None = None
    """One file for all splits."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the rows of ``file`` that form the split ``test``, chosen by the hash of their image or, without one, of
    their text, so that neither is in both; the rest is ``train``."""
    test_seed: int | None = None
    """Draw the share by this seed and, where there are labels, from each class alike. Null: by the hash alone, so that
    no row changes sides when others are added."""
    image_root: LocalPath | None = None
    """Folder below which the images are found; null for the file's own."""
    encoding: str = "utf-8"
    """Of CSV and TSV files, e.g. ``latin-1``, ``utf-16``."""
    delimiter: str | None = Field(default=None, pattern=r'^[^\r\n"]$')
    """Between the columns; null: a comma, in a TSV file a tab."""

    @model_validator(mode="after")
    def _agree(self) -> TableSettings:
        if (self.file is None) == (self.files is None):
            raise ValueError("needs either `files`, e.g. {train: a.csv, test: b.csv}, or one `file`")
        parted = (self.columns.split is not None) + (self.test_share is not None)
        if self.file is not None and parted != 1:
            raise ValueError("one `file` needs exactly one of columns.split and `test_share`, e.g. `test_share: 0.2`")
        if self.test_seed is not None and self.test_share is None:
            raise ValueError("test_seed goes with `test_share`")
        if self.files is not None:
            if parted:
                raise ValueError("columns.split and test_share go with one `file`, not with `files`")
            absent = [split for split in _splits.wanted(self) if split not in self.files]
            if absent:
                raise ValueError(f"`files` has none for the split {absent[0]!r}; add it, or correct the split's name")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"{error}; e.g. utf-8, latin-1, cp1252, utf-16") from error
        return self


Settings = TableSettings


def digest(settings: TableSettings) -> str:
    """See ``DataPlugin.digest``: of the files' contents, and the images' names and contents."""
    if settings.columns.image is not None:
        return load(settings).digest()
    paths = _paths(settings)
    for path in paths.values():
        _check_exists(settings, path)
    return _files.files_digest(paths.values(), Path(), (), "")


def load(settings: TableSettings) -> _files.ImageFolder:
    """See ``DataPlugin.load``."""
    paths = _paths(settings)
    root = _image_root(settings, list(paths.values()))
    splits: dict[str, Sequence[Example]] = {}
    used, notes = _columns.UsedNames(), Notes()
    for name, path in paths.items():
        _check_exists(settings, path)
        rows = _rows.read(path, encoding=settings.encoding, delimiter=settings.delimiter)
        images = _image_names(settings, path, root)
        mapper = _columns.Mapper(settings=settings, source=str(path), image=images, used=used, notes=notes)
        mapper.check(dict.fromkeys(name for row in rows for name in row.fields))
        if settings.columns.split is not None:
            splits |= {split: mapper.examples(part) for split, part in _parted(settings, path, rows).items()}
        elif settings.test_share is not None:
            by_class = settings.columns.label is not None
            splits |= _splits.shared(
                mapper.examples(rows), settings.test_share, seed=settings.test_seed, by_class=by_class
            )
        else:
            splits[name] = mapper.examples(rows)
    used.check(settings, ", ".join(map(str, paths.values())))
    if settings.columns.label is not None:
        classes.note_classes(splits.values(), notes)
    remedy = "  their names are looked up below data.image_root, without it below the table's own folder"
    return _files.ImageFolder(
        splits,
        images=root,
        annotations=list(paths.values()),
        remedy=remedy,
        follow_links=settings.follow_links,
        notes=notes,
    )


def _paths(settings: TableSettings) -> Mapping[str, Path]:
    """The files to read; the only one under the empty name."""
    if settings.files is None:
        assert settings.file is not None
        return {"": settings.file}
    return {split: settings.files[split] for split in _splits.wanted(settings)}


def _image_root(settings: TableSettings, paths: Sequence[Path]) -> Path:
    """``image_root``, or the folder of the tables; of tables in several folders, the one above all of them."""
    if settings.image_root is not None:
        return settings.image_root
    folders = {path.parent for path in paths}
    return folders.pop() if len(folders) == 1 else Path(os.path.commonpath([path.absolute() for path in folders]))


def _check_exists(settings: TableSettings, path: Path) -> None:
    if not path.is_file():
        raise DataError(
            f"data set {settings.name}: {path}: there is no such file\n"
            f"  a relative path is looked up from the working directory, {Path.cwd()}"
        )


def _image_names(settings: TableSettings, path: Path, root: Path) -> Callable[[_columns.Row, Any], str]:
    """From a value to a path below ``root``."""
    column = str(settings.columns.image)
    above = path.parent.absolute().relative_to(root.absolute()) if settings.image_root is None else Path()

    def image(row: _columns.Row, value: Any) -> str:
        if not isinstance(value, str):
            hint = "; a table that holds the images themselves is read by `data: {name: hub}`"
            raise row.error(column, f"must be the name of a file{hint if isinstance(value, Mapping) else ''}")
        try:
            _files.check_image_name(root / above, value)
        except DataError as error:
            raise row.error(column, str(error)) from error
        return (above / value).as_posix()

    return image


def _parted(settings: TableSettings, path: Path, rows: Sequence[_columns.Row]) -> Mapping[str, Sequence[_columns.Row]]:
    """The rows of each split that is needed, by ``columns.split``."""
    column = str(settings.columns.split)
    groups: dict[str, list[_columns.Row]] = {}
    for row in rows:
        groups.setdefault(str(row.fields.get(column)).strip(), []).append(row)
    for split in _splits.wanted(settings):
        if split not in groups:
            raise DataError(
                f"{path}: column {column!r} has no row of the split {split!r}{did_you_mean(split, list(groups))}"
            )
    return {split: groups[split] for split in _splits.wanted(settings)}

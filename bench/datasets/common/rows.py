"""Files of rows: CSV, TSV, JSON, JSON Lines and Parquet. Every problem names the file and, where it has any, the line.

CSV is read by the standard library, which knows lines and quotes; values stay texts as they are written, so that
``NA``, ``007`` and ``1e3`` mean what they look like.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.datasets.common import files
from bench.datasets.common.columns import Row, column_names, delimiter_in
from bench.errors import DataError

if TYPE_CHECKING:
    from io import TextIOWrapper

JSON = (".json", ".jsonl", ".ndjson", ".jsol")
PARQUET = (".parquet", ".pq")
_ANY_LENGTH = 2**31 - 1
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read(path: Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> list[Row]:
    """All rows of a file, by its suffix. ``encoding`` and ``delimiter`` are of CSV and TSV files.

    Raises DataError if it is absent, malformed, of another kind, or empty.
    """
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        rows = _csv(path, encoding, delimiter or DELIMITERS[suffix])
    elif suffix in JSON:
        rows = _records(path, files.read_json(path))
    elif suffix in PARQUET:
        rows = _records(path, _parquet(path))
    else:
        known = ", ".join((*DELIMITERS, *JSON, *PARQUET))
        raise DataError(f"{path}: what kind of table this is, its suffix {suffix!r} does not say (known: {known})")
    if not rows:
        raise DataError(f"{path}: holds no rows")
    return rows


def _records(path: Path, values: list[Any]) -> list[Row]:
    rows = []
    for number, value in enumerate(values):
        where = f"{path}: record {number}"
        if not isinstance(value, Mapping):
            raise DataError(f"{where}: must be an object with names of columns, found {value!r:.80}")
        rows.append(Row(where, value, number))
    return rows


def _parquet(path: Path) -> list[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{path}: Parquet needs the package pyarrow; install this project with its [hub] extra: "
            'python -m pip install -e ".[hub]"'
        ) from error
    try:
        values: list[Any] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file: {error}") from error
    return values


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of any length; the library's limit of 131,072 characters is one of the whole process."""
    before = csv.field_size_limit(_ANY_LENGTH)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv(path: Path, encoding: str, delimiter: str) -> list[Row]:
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        with path.open(encoding=encoding, newline="") as file, _long_cells():
            return _csv_rows(path, file, delimiter)
    except UnicodeError as error:
        raise DataError(f"{path}: cannot be read as {encoding} text: {error}; set data.encoding") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _csv_rows(path: Path, file: TextIOWrapper, delimiter: str) -> list[Row]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue  # a blank line
            if header is None:
                header = _header(where, cells, delimiter)
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} values, but {len(header)} columns; a text that holds the delimiter, here "
                    f"{delimiter!r}, or a line break must stand in quotes; another one is set by data.delimiter"
                )
            else:
                rows.append(Row(where, dict(zip(header, cells, strict=True)), len(rows)))
    except csv.Error as error:
        if header is None:
            file.seek(0)
            _check_delimiter(f"{path}:1", file.readline(), delimiter)
        problem = f"{error}; is a quote not closed, or not doubled within a text?"
        raise DataError(f"{path}:{start}: not a valid table: {problem}") from error
    return rows


def _header(where: str, cells: list[str], delimiter: str) -> list[str]:
    if len(cells) == 1:
        _check_delimiter(where, cells[0], delimiter)
    names = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(f"{where}: two columns are called {twice[0]!r}; rename one")
    return names


def _check_delimiter(where: str, header: str, delimiter: str) -> None:
    """Raise DataError if something else separates the columns."""
    other = None if delimiter in header else delimiter_in(header)
    if other is not None:
        known = ", ".join(map(repr, column_names(header.strip(), other)))
        raise DataError(
            f"{where}: the header {header.strip()!r:.200} has no {delimiter!r} between columns; set "
            f"`data.delimiter: {other!r}` for the columns {known:.200}"
        )

"""Rows of tables and annotation files: CSV, TSV, JSON, JSON Lines and Parquet, and the values in them."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench.errors import DataError
from bench.plugins import AnswerType, Example
from bench.registry import did_you_mean

JSON = (".json", ".jsonl", ".ndjson", ".jsol")
PARQUET = (".parquet", ".pq")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_INDEX = re.compile(r"-?[0-9]{1,6}")


class MissingValueError(DataError):
    """A row lacks a value."""

    def __init__(self, row: SourceRow, column: str, hint: str = "") -> None:
        super().__init__(f"{row.where}: column {column!r}: is empty{hint}")
        self.place = f"{row.where}, column {column!r}"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row of a table, or a record of an annotation file."""

    where: str
    """For errors: ``a.csv:7``, or source and number of the record."""
    fields: Mapping[str, Any]
    number: int
    """From 0."""

    def error(self, column: str, problem: str) -> DataError:
        """Error about a value."""
        return DataError(f"{self.where}: column {column!r}: {problem}")

    def value(self, name: str, *, required: bool = True) -> Any:
        """Value of a column; dots lead into a nested value. Raises MissingValueError if it is required and absent, and
        DataError for a step into a value that has no such steps."""
        value: Any = self.fields
        if name in self.fields:
            value = self.fields[name]
        else:
            steps = name.split(".")
            for depth, step in enumerate(steps):
                above, value = value, self._step(value, steps[:depth], step)
                if required and value is None and isinstance(above, Mapping) and step not in above:
                    parent = ".".join(steps[:depth]) or "the row"
                    raise MissingValueError(self, name, f": {parent} has no {step!r}{did_you_mean(step, list(above))}")
        if required and (value is None or value == "" or value != value):  # NaN alone differs from itself
            raise MissingValueError(self, name)
        return value

    def _step(self, value: Any, before: Sequence[str], step: str) -> Any:
        """Value at one step of a dotted name; null if it is absent."""
        column = ".".join(before)
        if isinstance(value, list):
            if not _INDEX.fullmatch(step):
                example = ".".join((*before, "0", step))
                raise self.error(column, f"is a list of {len(value)}; name one item of it, e.g. `{example}`")
            return value[int(step)] if -len(value) <= int(step) < len(value) else None
        if isinstance(value, Mapping):
            return value.get(step)
        if value is None or value != value:
            return None
        raise self.error(column, f"is no list and has no fields, but {value!r:.80}; so there is no {step!r} in it")

    def text(self, name: str, *, required: bool = True) -> str:
        """A value as text, without white space around it."""
        text = self.as_text(name, self.value(name, required=required))
        if required and not text:
            raise MissingValueError(self, name)
        return text

    def words(self, name: str, *, required: bool = True) -> str:
        """``text`` with white space collapsed."""
        # Published annotations have tabs, and integers, among their texts; a boolean there is a mistake.
        if isinstance(self.fields.get(name), bool):
            raise self.error(name, f"must be text, found {self.fields[name]!r}")
        return " ".join(self.text(name, required=required).split())

    def as_text(self, name: str, value: Any) -> str:
        """Text of a value found at ``name``; empty if it is missing."""
        if value is None or value != value:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str | int | float):
            return str(value).strip()
        if isinstance(value, list):
            found = f"a list of {len(value)}" + (f": {value!r:.80}; name one item, e.g. `{name}.0`" if value else "")
        elif isinstance(value, Mapping):
            found = f"fields: {value!r:.80}; name one, e.g. `{name}.{next(iter(value), 'x')}`"
        else:
            found = f"{value!r:.80}"
        raise self.error(name, f"must be text, found {found}")

    def answer_type(self, name: str) -> AnswerType:
        """``open`` or ``closed``, in any case and with spaces around (VQA-RAD has ``"CLOSED "``)."""
        match self.text(name).lower():
            case "open":
                return "open"
            case "closed":
                return "closed"
            case other:
                raise self.error(name, f"must be open or closed, found {other!r:.80}")


def unique(made: Iterable[tuple[SourceRow, Example]], column: str) -> list[Example]:
    """The examples. Raises DataError if two have the same id, which stands in ``column``."""
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for row, example in made:
        before = seen.setdefault(example.question_id, row.where)
        if before != row.where:
            raise row.error(column, f"{example.question_id!r:.80} is also the id at {before}")
        examples.append(example)
    return examples


def read_rows(path: Path, *, encoding: str = "utf-8", delimiter: str | None = None) -> list[SourceRow]:
    """All rows of a file, read by its suffix; ``encoding`` and ``delimiter``: of CSV and TSV files.

    Raises DataError that names file and, where it has any, line: absent, malformed, of another kind, or empty.
    """
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        rows = _read_csv(path, encoding, delimiter or DELIMITERS[suffix])
    elif suffix in JSON:
        rows = read_records(path)
    elif suffix in PARQUET:
        rows = to_rows(str(path), _read_parquet(path))
    else:
        known = ", ".join((*DELIMITERS, *JSON, *PARQUET))
        raise DataError(f"{path}: the suffix {suffix!r} names no kind of table (known: {known})")
    if not rows:
        raise DataError(f"{path}: holds no rows")
    return rows


def to_rows(source: str, records: Iterable[Any]) -> list[SourceRow]:
    """Rows of records. Raises DataError for a record that is not a mapping."""
    rows = []
    for number, record in enumerate(records):
        where = f"{source}: record {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where}: must be an object with names of columns, found {record!r:.80}")
        rows.append(SourceRow(f"{where} (qid {record['qid']!r})" if "qid" in record else where, record, number))
    return rows


def read_records(path: Path) -> list[SourceRow]:
    """The records of a JSON array, or of a file with one JSON value per line, whatever the suffix."""
    return to_rows(str(path), read_json(path))


def read_json(path: Path) -> list[Any]:
    """Values of a JSON array, or one of each line. Raises DataError that names file, line and column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    is_array = text.lstrip().startswith("[")
    # Not splitlines, which also ends a line at characters that JSON allows within a text, such as U+2028.
    parts = [(1, text)] if is_array else enumerate(text.split("\n"), start=1)
    values = [_parse_json(path, line, part) for line, part in parts if part.strip()]
    records: list[Any] = values[0] if is_array else values
    if not records:
        raise DataError(f"{path}: holds no records")
    return records


def _parse_json(path: Path, first_line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise DataError(f"{path}:{line}:{error.colno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{first_line}: not valid JSON: {error}") from error


def _read_parquet(path: Path) -> list[Any]:
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


def _read_csv(path: Path, encoding: str, delimiter: str) -> list[SourceRow]:
    # Not pandas: it fills short rows, and says no line of a row that spans several. Values stay texts as they are
    # written, so that ``NA``, ``007`` and ``1e3`` mean what they look like.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    limit = csv.field_size_limit(2**31 - 1)  # of the whole process; its default refuses cells of 131,072 characters
    try:
        with path.open(encoding=encoding, newline="") as file:
            return _csv_rows(path, file, delimiter)
    except UnicodeError as error:
        raise DataError(f"{path}: cannot be read as {encoding} text: {error}; set data.encoding") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path, file: TextIO, delimiter: str) -> list[SourceRow]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    rows: list[SourceRow] = []
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if not cells:
                continue  # a blank line
            if not header:
                header = _csv_header(where, cells, delimiter)
            elif len(cells) != len(header):
                raise DataError(
                    f"{where}: {len(cells)} values, but {len(header)} columns; a text that holds the delimiter, here "
                    f"{delimiter!r}, or a line break must stand in quotes; another one is set by data.delimiter"
                )
            else:
                rows.append(SourceRow(where, dict(zip(header, cells, strict=True)), len(rows)))
    except csv.Error as error:
        if not header:
            file.seek(0)
            _check_delimiter(f"{path}:1", file.readline(), delimiter)
        problem = f"{error}; is a quote not closed, or not doubled within a text?"
        raise DataError(f"{path}:{start}: not a valid table: {problem}") from error
    return rows


def _csv_header(where: str, cells: list[str], delimiter: str) -> list[str]:
    if len(cells) == 1:
        _check_delimiter(where, cells[0], delimiter)
    names = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(f"{where}: two columns are called {twice[0]!r}; rename one")
    return names


def _check_delimiter(where: str, header: str, delimiter: str) -> None:
    """Raise DataError if another character separates the columns."""
    other = None if delimiter in header else delimiter_in(header)
    if other is not None:
        known = ", ".join(map(repr, column_names(header.strip(), other)))
        raise DataError(
            f"{where}: the header {header.strip()!r:.200} has no {delimiter!r} between columns; set "
            f"`data.delimiter: {other!r}` for the columns {known:.200}"
        )


def delimiter_in(header: str) -> str | None:
    """Delimiter in a header that was read as one column; null if it has none."""
    most = max(";\t|,", key=header.count)
    return most if most in header else None


def column_names(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').strip() for name in header.split(delimiter)]

"""Reading and appending records: a JSON line each, checked when written and when read.

A line is ``{"checksum":"<16 hex digits>", <the record's fields>}``; the checksum is over the canonical JSON of the
other members. Runs append lines, and only ``--forget`` removes some. Of each ``cell_id`` the last final result counts,
or its last line if it has none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from bench.errors import RecordError
from bench.files import describe_bytes, not_regular, read_regular, sync_folder, write_atomic
from bench.records.record import SCHEMA_VERSION, CellRecord

LINE_START = b'{"checksum":"'
_START = LINE_START.decode()
_MARKS = (b'"checksum":"', b'"cell_id":"')
"""Marks of a records file; even a damaged file holds one somewhere."""
_SEARCH_FACTOR = 64
"""The search for records in a damaged line ends after reading so many times its length."""
MAX_WARNINGS = 3
"""Damaged lines of a file that are reported one by one; the others are counted."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


class ResultsFile:
    """The records of one spec at one scale, ``results/<spec>/<scale>.jsonl``."""

    def __init__(self, path: Path, *, warn: Callable[[str], None] = _print_warning) -> None:
        self.path = path
        self._warn = warn
        self._lock = FileLock(f"{path}.lock")
        self._owner = Path(f"{path}.lock.owner")

    def read(self) -> dict[str, CellRecord]:
        """The record of each cell that counts (see ``latest``), in file order.

        A torn line, or one that does not match its checksum, is skipped with a warning. Raises RecordError if the file
        cannot be read, is not a records file, or was written by a newer version.
        """
        return latest(self.history())

    def history(self) -> list[CellRecord]:
        """Every record in file order, superseded ones included. Warns and raises as ``read`` does."""
        records: list[CellRecord] = []
        problems: list[str] = []
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            where = f"{self.path}:{number}"
            found = [content for content, _, _ in _verified(_text(line))]
            whole = line.startswith(LINE_START) and line.rstrip(b"\n").endswith(b"}")
            if len(found) != 1 or not whole:
                torn = not line.endswith(b"\n") and not found
                problems.append(f"{where}: {_describe_damage(torn=torn, recovered=len(found))}")
            for content in found:
                try:
                    records.append(_validated(content, where))
                except ValidationError as error:
                    problems.append(f"{where}: {_describe_mismatch(error)}")
        for message in problems[:MAX_WARNINGS]:
            self._warn(message)
        if (more := len(problems) - MAX_WARNINGS) > 0:
            self._warn(f"{self.path}: {more:,} more line{'s' * (more > 1)} with such a problem")
        return records

    def append(self, record: CellRecord) -> None:
        """Append a record, flush it to the disk and read it back.

        Raises RecordError, with the file unchanged, if the whole line cannot be written.
        """
        line = encode(record)
        with self.lock():
            try:
                _append_line(self.path, line)
                sync_folder(self.path.parent)
            except OSError as error:
                kept = sum(1 for _ in self._lines())
                outcome = f"the record of {record.label!r} was not appended, the {kept} before it are kept"
                raise write_error(error, self.path, outcome) from error

    def remove(self, cell_ids: Collection[str]) -> list[str]:
        """Remove every record of these cells; returns the cell id of each. All other lines stay as they are.

        A file left empty is deleted. Raises RecordError, with the file unchanged, if it cannot be written.
        """
        kept: list[bytes] = []
        removed: list[str] = []
        with self.lock():
            for line in self._lines():
                rest, gone = _without(line, cell_ids)
                kept += rest
                removed += gone
            if removed:
                try:
                    if any(line.strip() for line in kept):
                        write_atomic(self.path, b"".join(kept))
                    else:
                        self.path.unlink()
                        sync_folder(self.path.parent)
                except OSError as error:
                    raise write_error(error, self.path, "no record was removed") from error
        return removed

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the file against other runs; reentrant. Raises RecordError, with the owner, if another run holds it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RecordError(
                f"{self.path} is in use by another run ({self._owner_name()}): wait until it ends, end it, "
                "or give this run a folder of its own with --results"
            ) from None
        except OSError as error:
            raise write_error(error, self.path, "nothing was run") from error
        outermost = self._lock.lock_counter == 1
        try:
            if outermost:
                with suppress(OSError):  # the name is a courtesy; the lock holds without it
                    self._owner.unlink(missing_ok=True)
                    self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            if outermost:
                with suppress(OSError):
                    self._owner.unlink(missing_ok=True)
            self._lock.release()

    def _owner_name(self) -> str:
        try:
            return read_regular(self._owner).decode("utf-8", "replace") or "unknown process"
        except OSError:
            return "unknown process"

    def _lines(self) -> list[bytes]:
        """Lines with their newline, which the last line may lack."""
        try:
            if kind := not_regular(self.path):
                raise self._foreign(kind)
            content = read_regular(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RecordError(f"cannot read {self.path}: {error.strerror}") from error
        if not holds_records(content) and content.strip(b"\0 \r\n") and not LINE_START.startswith(content):
            raise self._foreign(describe_bytes(content))
        return content.splitlines(keepends=True)

    def _foreign(self, kind: str) -> RecordError:
        return RecordError(
            f"{self.path} is {kind}, not a records file: move it away, or use another folder with --results"
        )


def holds_records(content: bytes) -> bool:
    """Whether a file's content, or the start of it, holds anything like a record, whole or damaged."""
    return any(trace in content for trace in _MARKS)


def latest(history: Iterable[CellRecord]) -> dict[str, CellRecord]:
    """Last final result of each cell, or its last record if none is final."""
    records: dict[str, CellRecord] = {}
    for record in history:
        known = records.get(record.cell_id)
        if known is not None and known.is_final and not record.is_final:
            continue
        records.pop(record.cell_id, None)
        records[record.cell_id] = record
    return records


def encode(record: CellRecord) -> bytes:
    """The line of a record. Raises RecordError for NaN and infinity, which JSON does not have."""
    content = record.model_dump(mode="json", by_alias=True)
    try:
        return _line(content)
    except ValueError as error:
        raise RecordError(f"the record of {record.label!r} cannot be written as JSON: {error}") from error


def _line(content: dict[str, Any]) -> bytes:
    return b'{"checksum":"%s",%s\n' % (checksum(content).encode(), _json(content)[1:])


def checksum(content: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of a record."""
    return hashlib.sha256(_json(content, canonical=True)).hexdigest()[:16]


def write_error(error: OSError, path: Path, outcome: str) -> RecordError:
    """The error for a failed write; ``outcome`` says what was kept and what was not."""
    if error.errno in _NO_SPACE:
        return RecordError(f"disk full: {path}: {outcome}; free some space and run the same command again")
    return RecordError(f"cannot write {path} ({error.strerror or error}): {outcome}")


def _append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        start = os.fstat(descriptor).st_size
        if start and os.pread(descriptor, 1, start - 1) != b"\n":
            line = b"\n" + line  # keep away from a torn last line
        try:
            _write_all(descriptor, line)
            os.fsync(descriptor)
            _verify(descriptor, line, start)
        except OSError:
            os.ftruncate(descriptor, start)
            os.fsync(descriptor)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        # A nearly full disk takes a part without an error; the next call then says why.
        written = os.write(descriptor, data)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[written:]


def _verify(descriptor: int, line: bytes, start: int) -> None:
    if os.pread(descriptor, len(line), start) != line:
        raise OSError(errno.EIO, "what was read back differs from what was written")


def _json(content: dict[str, Any], *, canonical: bool = False) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=canonical)
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its JSON escape


def _text(line: bytes) -> str:
    """Text of a line; bytes that are not UTF-8 become lone surrogates, so that it can be written back unchanged."""
    return line.decode("utf-8", "surrogateescape")


def _without(line: bytes, cell_ids: Collection[str]) -> tuple[list[bytes], list[str]]:
    """What is left of a line without the records of these cells, as lines, and the ids of the removed records."""
    text, found = _text(line), list(_verified(_text(line)))
    gone = [str(content["cell_id"]) for content, _, _ in found if content.get("cell_id") in cell_ids]
    if not gone:
        return [line], []
    kept, place = [], 0
    for content, start, end in [*found, ({}, len(text), len(text))]:
        between = text[place:start].rstrip("\n")
        if len(between) > 1:  # one byte is what became of the newline between two records
            kept.append(f"{between}\n".encode("utf-8", "surrogateescape"))
        if content and content.get("cell_id") not in cell_ids:
            kept.append(_line(content))
        place = end
    return kept, gone


def _verified(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Records in a line that match their checksums, each with its start and end; several if a newline was damaged."""
    decoder = json.JSONDecoder()
    start, budget = text.find(_START), _SEARCH_FACTOR * len(text)
    while start >= 0 and budget > 0:
        try:
            content, end = decoder.raw_decode(text, start)
            budget -= end - start
            if content.pop("checksum") == checksum(content):
                yield content, start, end
        except json.JSONDecodeError as error:
            budget -= error.pos  # the error counts the line ends from the beginning of the text
        except (ValueError, RecursionError):
            budget -= len(text)
        start = text.find(_START, start + 1)


def _validated(content: dict[str, Any], where: str) -> CellRecord:
    """The record. Raises RecordError for one of a newer version, ValidationError for content that is not a record."""
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecordError(
            f"{where}: written by a newer version of this program (record schema {version}, known up to "
            f"{SCHEMA_VERSION}): update it, or give another folder with --results"
        )
    return CellRecord.model_validate(content)


def _describe_damage(*, torn: bool, recovered: int) -> str:
    if torn:
        return "the last line is torn (an earlier run was cut off while writing it), ignored"
    if recovered:
        return f"damaged line, all of its {recovered} record(s) recovered"
    return "damaged line (its checksum does not match), ignored; its cell will be run again; the line stays in the file"


def _describe_mismatch(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"not a record of schema {SCHEMA_VERSION}, ignored ({place}: {first['msg']})"

"""Stored records as ``compare`` and ``export`` take them: a file or folder, as it is, as git has it, or as one commit
of the program made it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.errors import SpecError
from bench.files import describe_bytes, not_regular
from bench.format import printable
from bench.records.record import CellRecord
from bench.records.store import ResultsFile, holds_records, latest
from bench.spec.diagnostics import quoted

SYNTAX = """\
  PATH         a records file (results/table1/demo.jsonl), or a folder of them (results, results/table1)
  REV:PATH     the same as git has it at a revision (main:results/gallery, HEAD~3:results/gallery/table1/demo.jsonl)
  PATH@COMMIT  of the file's lines those that this commit of the program made, by the start of its hash; a rerun with
               --fresh keeps the older ones, though not their predictions"""
"""What a source may be, for help texts."""
_LOOKED_AT = 1 << 16
"""Bytes at a file's start by which it is known as a records file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRecord:
    """A record and where it lies."""

    record: CellRecord
    folder: Path
    """Results folder of its spec; ``record.predictions`` is relative to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a user named, read."""

    name: str
    """As the user wrote it."""
    stored: tuple[StoredRecord, ...]
    """The record of each cell that counts, file by file, in the order of the files."""

    @property
    def records(self) -> list[CellRecord]:
        return [stored.record for stored in self.stored]


@contextmanager
def open_records(name: str) -> Iterator[Source]:
    """Read a source (see ``SYNTAX``); files that git has older versions of exist until the end of the block.

    Raises SpecError if there is no such thing or no record in it, RecordError if a file cannot be read.
    """
    with TemporaryDirectory() as scratch:
        stored = _stored(name, Path(scratch))
        if not stored:
            raise SpecError(
                f"{printable(name)}: no records there; name a records file such as results/table1/demo.jsonl, or a "
                "folder of them, such as results"
            )
        yield Source(name=name, stored=tuple(stored))


def _stored(name: str, scratch: Path) -> list[StoredRecord]:
    if Path(name).exists():
        return _read(Path(name), lambda file: list(file.read().values()))
    path, at, commit = name.rpartition("@")
    if at and Path(path).exists():
        return _read(Path(path), lambda file: _made_by(file, _commit_start(commit, name)))
    revision, colon, path = name.partition(":")
    if colon:
        return _read(_checked_out(revision, Path(path), scratch), lambda file: list(file.read().values()))
    raise SpecError(f"{printable(name)}: no such file or folder; write one of\n{SYNTAX}")


def _read(path: Path, records: Callable[[ResultsFile], list[CellRecord]]) -> list[StoredRecord]:
    files = _files(path) if path.is_dir() else [path]
    return [StoredRecord(record=record, folder=file.parent) for file in files for record in records(ResultsFile(file))]


def _files(folder: Path) -> list[Path]:
    """Records files of a spec's folder, or of all specs' folders; no files of predictions or the like."""
    return [
        path for pattern in ("*.jsonl", "*/*.jsonl") for path in sorted(folder.glob(pattern)) if _holds_records(path)
    ]


def _holds_records(path: Path) -> bool:
    """Says so of what is neither a records file nor one of other JSON lines."""
    try:
        kind = not_regular(path)
        head = b"" if kind else _head(path)
    except OSError as problem:
        kind, head = f"unreadable ({problem.strerror})", b""
    if holds_records(head):
        return True
    if kind or head.strip()[:1] not in (b"", b"{"):
        found = kind or describe_bytes(head)
        print(f"warning: {printable(str(path))} is {found}, no records file; left out", file=sys.stderr)
    return False


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT)


def _made_by(file: ResultsFile, commit: str) -> list[CellRecord]:
    """The record of each cell that counts among those of this commit."""

    def of_commit(record: CellRecord) -> bool:
        revision = record.environment.get("git")
        return isinstance(revision, dict) and str(revision.get("commit", "")).startswith(commit)

    return list(latest(filter(of_commit, file.history())).values())


def _commit_start(commit: str, name: str) -> str:
    """A revision as a hash, where git knows it here; else the start of a hash."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if found.returncode == 0:
        return found.stdout.decode().strip()
    if len(commit) < 4 or not set(commit) <= set("0123456789abcdef"):
        raise SpecError(f"{printable(name)}: {quoted(commit)} is no revision and no start of a commit's hash")
    return commit


def _checked_out(revision: str, path: Path, scratch: Path) -> Path:
    """The path below ``scratch``, as git has it; of a file its folder, too, which holds the predictions."""
    shown = f"{printable(revision)}:{printable(str(path))}"
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if commit.returncode:
        raise SpecError(f"{shown}: no such file or folder, and git has no revision {quoted(revision)} here")
    kind = _git("cat-file", "-t", f"{commit.stdout.decode().strip()}:./{path.as_posix()}")
    if kind.returncode:
        raise SpecError(f"{shown}: that revision has no such file or folder; see git ls-tree -r --name-only REV")
    folder = path.parent if kind.stdout.strip() == b"blob" else path
    done = _git("archive", commit.stdout.decode().strip(), f":(literal){folder.as_posix()}")
    if done.returncode:
        raise SpecError(f"{shown}: git cannot take it out: {printable(done.stderr.decode(errors='replace').strip())}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / path


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise SpecError("git is not installed: name files or folders that are here") from None

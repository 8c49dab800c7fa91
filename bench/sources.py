"""Stored records by the name that a user gives them: a path, a git revision of it, or one commit's part of it."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
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
"""Names of sources, for help texts."""
_HEAD_BYTES = 1 << 16
"""By which a records file is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRecord:
    """A record and its folder."""

    record: CellRecord
    folder: Path
    """Results folder of its spec; ``record.predictions`` is relative to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The records of one name."""

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
        stored = _read(name, Path(scratch))
        if not stored:
            raise SpecError(
                f"{printable(name)}: no records there; name a records file such as results/table1/demo.jsonl, or a "
                "folder of them, such as results"
            )
        yield Source(name=name, stored=tuple(stored))


def _read(name: str, scratch: Path) -> list[StoredRecord]:
    path, at, commit = name.rpartition("@")
    revision, colon, of_revision = name.partition(":")
    if Path(name).exists():
        files = _files(Path(name))
    elif at and Path(path).exists():
        return at_commit(_files(Path(path)), _commit_start(commit, name))
    elif colon:
        files = _files(_check_out(revision, Path(of_revision), scratch))
    else:
        raise SpecError(f"{printable(name)}: no such file or folder; write one of\n{SYNTAX}")
    return [StoredRecord(record=r, folder=file.parent) for file in files for r in ResultsFile(file).read().values()]


def at_commit(files: Sequence[Path], commit: str) -> list[StoredRecord]:
    """Of each cell the record that counts among those that this commit of the program made."""
    found = []
    for file in files:
        made = [record for record in ResultsFile(file).history() if _commit_of(record).startswith(commit)]
        found += [StoredRecord(record=record, folder=file.parent) for record in latest(made).values()]
    return found


def _commit_of(record: CellRecord) -> str:
    revision = record.environment.get("git")
    return str(revision.get("commit", "")) if isinstance(revision, dict) else ""


def _files(path: Path) -> list[Path]:
    """The file; or the records files of a spec's folder, or of all specs' folders, not the predictions or the like."""
    if not path.is_dir():
        return [path]
    return [file for glob in ("*.jsonl", "*/*.jsonl") for file in sorted(path.glob(glob)) if _holds_records(file)]


def _holds_records(path: Path) -> bool:
    """Warns of a file that holds neither records nor other JSON lines."""
    head = b""
    try:
        kind = not_regular(path)
        if not kind:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
    except OSError as problem:
        kind = f"unreadable ({problem.strerror})"
    if holds_records(head):
        return True
    if kind or head.strip()[:1] not in (b"", b"{"):
        found = kind or describe_bytes(head)
        print(f"warning: {printable(str(path))} is {found}, not a records file; left out", file=sys.stderr)
    return False


def _commit_start(commit: str, name: str) -> str:
    """A revision as a hash, where git knows it here; else the start of a hash."""
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if found.returncode == 0:
        return found.stdout.decode().strip()
    if len(commit) < 4 or not set(commit) <= set("0123456789abcdef"):
        raise SpecError(f"{printable(name)}: {quoted(commit)} is no revision and no start of a commit's hash")
    return commit


def _check_out(revision: str, path: Path, scratch: Path) -> Path:
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

"""SHA-256 of files, remembered between runs, so that a second look at ten thousand images takes a fraction of a second.

A remembered hash counts only as long as the file's size, times of modification and change, and inode are the same. A
file that was changed a moment before it was read is not remembered: a further change might leave the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

FOLDER = "peft-freeze-bench"
QUICK_BYTES = 128 << 20
"""What a list or a report may read of files whose hashes are not remembered: a fraction of a second's work."""
_SETTLED_NS = 2_000_000_000
"""Age of a file's last change from which its times tell a further change on any file system (FAT counts in 2 s)."""
_THREADS = 8

State = tuple[int, int, int, int]
"""Size in bytes, modification and change time in ns, inode."""


class UnreadError(BenchError):
    """A digest is not known without more work than a list or a report may do."""


class MissingFilesError(Exception):
    """Files that are not there or cannot be read; ``names`` as they were asked for, sorted."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names[:3]))
        self.names = sorted(names)


@dataclass(kw_only=True, slots=True)
class _Limits:
    left_bytes: int
    patient: bool


_limits: ContextVar[_Limits | None] = ContextVar("limits", default=None)
"""Null: read whatever is asked for."""


@contextmanager
def quick(most_bytes: int = QUICK_BYTES, *, patient: bool = False) -> Iterator[None]:
    """Within the block, a digest that would read more than this raises UnreadError, as does, unless ``patient``, one
    that needs the Hub or a slow library."""
    token = _limits.set(_Limits(left_bytes=most_bytes, patient=patient))
    try:
        yield
    finally:
        _limits.reset(token)


def takes_long(what: str) -> None:
    """Called before slow work for a digest. Raises UnreadError where nobody waits for it, see ``quick``."""
    limits = _limits.get()
    if limits is not None and not limits.patient:
        raise UnreadError(f"{what} takes long")


def of_files(root: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 (hex) of the contents of files below ``root``, in the order of ``names``.

    Raises MissingFilesError, before any is read, if some are not there, and UnreadError within ``quick``.
    """
    paths = [os.path.join(root, name) for name in names]  # noqa: PTH118 - a Path each would take longer than the rest
    states = _states(names, paths)
    cache = _Cache(root)
    known = cache.read()
    found = {
        name: entry[1] for name, state in states.items() if (entry := known.get(name)) is not None and entry[0] == state
    }
    todo = {name: path for name, path in zip(names, paths, strict=True) if name not in found}
    if todo:
        _spend(sum(states[name][0] for name in todo))
        fresh = _hashed(todo)
        found |= {name: own for name, (own, _) in fresh.items()}
        settled = {name: (state, own) for name, (own, state) in fresh.items() if state is not None}
        if settled:
            cache.write(known | settled)
    return [found[name] for name in names]


def of_file(path: Path) -> str:
    """SHA-256 (hex) of one file's content. Raises as ``of_files`` does."""
    return of_files(path.parent, [path.name])[0]


def _states(names: Sequence[str], paths: Sequence[str]) -> dict[str, State]:
    states, missing = {}, []
    for name, path in zip(names, paths, strict=True):
        try:
            states[name] = _state(os.stat(path))  # noqa: PTH116 - as above
        except (OSError, ValueError):
            missing.append(name)
    if missing:
        raise MissingFilesError(missing)
    return states


def _state(found: os.stat_result) -> State:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _spend(wanted: int) -> None:
    limits = _limits.get()
    if limits is None:
        return
    if wanted > limits.left_bytes:
        raise UnreadError(f"{wanted:,} bytes were not read")
    limits.left_bytes -= wanted


def _hashed(todo: dict[str, str]) -> dict[str, tuple[str, State | None]]:
    """Hash and state of each file; no state where the content may change again within the same times."""
    found: dict[str, tuple[str, State | None]] = {}
    missing = []
    with ThreadPoolExecutor(min(_THREADS, len(todo))) as threads:
        for name, one in zip(todo, threads.map(_hash, todo.values()), strict=True):
            if one is None:
                missing.append(name)
            else:
                found[name] = one
    if missing:
        raise MissingFilesError(missing)
    return found


def _hash(path: str) -> tuple[str, State | None] | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            before = _state(os.fstat(file.fileno()))
            own = hashlib.file_digest(file, "sha256").hexdigest()
            after = _state(os.fstat(file.fileno()))
    except (OSError, ValueError):
        return None
    settled = before == after and max(after[1], after[2]) < time.time_ns() - _SETTLED_NS
    return own, after if settled else None


class _Cache:
    """The remembered hashes of the files below one folder; nothing where they cannot be read or written."""

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
        self._path = _home() / "digests" / f"{name}.json"

    def read(self) -> dict[str, tuple[State, str]]:
        try:
            checksum, content = self._path.read_bytes().split(b"\n", 1)
            if hashlib.sha256(content).hexdigest().encode() != checksum:
                return {}
            return {name: ((size, mtime, ctime, inode), own)
                    for name, (size, mtime, ctime, inode, own) in json.loads(content).items()}  # fmt: skip
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def write(self, entries: dict[str, tuple[State, str]]) -> None:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        content = json.dumps({name: [*state, own] for name, (state, own) in entries.items()}).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            draft.replace(self._path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _home() -> Path:
    """The user's cache folder by the XDG Base Directory Specification, which ignores a relative one."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # noqa: PTH117 - no Path is needed otherwise
        return Path(given) / FOLDER
    try:
        return Path.home() / ".cache" / FOLDER
    except RuntimeError:  # no home
        return Path(os.devnull) / FOLDER

"""Files: written atomically, described by their first bytes, and hashed once.

SHA-256 sums are cached between runs, so that hashing ten thousand images again takes a fraction of a second. A cached
sum is used as long as the file's size, modification and change times, and inode stay the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_HEAD = 512
ZIP, PICKLE, SAFETENSORS, BINARY = "a zip archive", "a pickle", "a safetensors file", "binary data"
_MAGIC = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself (git lfs pull fetches it)"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PK\x03\x04", ZIP),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program or library"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x93NUMPY", "a NumPy array"),
)
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_MODES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CACHE_FOLDER = "peft-freeze-bench"
LIMIT_BYTES = 128 << 20
"""Bytes of files without a cached sum that a list or a report may read, in a fraction of a second."""
_SETTLED_NS = 2_000_000_000
"""Age of a file's last change from which its times show any further change (FAT has a resolution of 2 s)."""
_THREADS = 8

State = tuple[int, int, int, int]
"""Size in bytes, modification and change time in ns, inode."""


class UnreadError(BenchError):
    """A digest would take longer than a list or a report may."""


class MissingFilesError(Exception):
    """Files that do not exist or cannot be read; ``names`` as the caller gave them, sorted."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names[:3]))
        self.names = sorted(names)


# --- writing -------------------------------------------------------------------------------------------------


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader, also after a power cut, sees the old or the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that the name of a new file survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush folders
            raise
    finally:
        os.close(descriptor)


# --- reading and describing ----------------------------------------------------------------------------------


def not_regular(path: Path) -> str | None:
    """``a folder``, ``a named pipe``, ...; None for a regular file. Raises OSError as ``Path.stat`` does."""
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _MODES.get(stat.S_IFMT(mode), "no regular file")


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, also for a pipe or device: reading one could block for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def what_is(path: Path) -> str:
    """``an empty file``, ``an HTML page``, ``a text that begins with '...'`` and the like; raises nothing."""
    try:
        if kind := not_regular(path):
            return kind
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            return describe_bytes(file.read(_HEAD))
    except OSError as error:
        return f"unreadable ({error.strerror or error})"


def describe_bytes(head: bytes) -> str:
    """Kind of file by its first bytes, as ``what_is`` returns it."""
    head = head[:_HEAD]
    if not head:
        return "an empty file"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if _HTML.match(head):
        return "an HTML page, as of a failed download"
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 1 << 40:
        return SAFETENSORS
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLE
    if not head.strip(b"\0"):
        return "a file of zero bytes (0x00)"
    return _describe_text(head)


def _describe_text(head: bytes) -> str:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Only an error in the last bytes of a full head is a character that the head cuts in two.
        if len(head) < _HEAD or error.start < len(head) - 4:
            return BINARY
        text = head[: error.start].decode("utf-8-sig")
    if any(ord(character) < 32 and character not in "\t\r\n\f\x1b" for character in text):
        return BINARY
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"a text that begins with {first[:40]!a}" if first else "a blank text"


# --- SHA-256, cached -------------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class _Limit:
    left_bytes: int
    patient: bool


_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def limited_reading(max_bytes: int = LIMIT_BYTES, *, patient: bool = False) -> Iterator[None]:
    """Within the block, a digest that would read more than ``max_bytes`` raises UnreadError; so does one that needs the
    Hub or a slow library, unless ``patient``."""
    token = _limit.set(_Limit(left_bytes=max_bytes, patient=patient))
    try:
        yield
    finally:
        _limit.reset(token)


def refuse_if_limited(work: str) -> None:
    """To be called before slow work for a digest. Raises UnreadError within ``limited_reading``, unless ``patient``."""
    limit = _limit.get()
    if limit is not None and not limit.patient:
        raise UnreadError(f"{work} takes long")


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's content. Raises as ``sha256_of_all`` does."""
    return sha256_of_all(path.parent, [path.name])[0]


def sha256_of_all(root: Path, names: Sequence[str]) -> list[str]:
    """SHA-256 (hex) of the contents of files below ``root``, in the order of ``names``.

    Raises MissingFilesError, before reading, for files that do not exist, and UnreadError within ``limited_reading``.
    """
    # Strings, since ten thousand Path objects would take longer than everything else here.
    paths = [os.path.join(root, name) for name in names]  # noqa: PTH118
    states = _states(names, paths)
    cache = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]}.json"
    known = _read_cache(cache)
    sums = {name: known[name][1] for name, state in states.items() if name in known and known[name][0] == state}
    if todo := {name: path for name, path in zip(names, paths, strict=True) if name not in sums}:
        _spend(sum(states[name][0] for name in todo))
        fresh = _hash_all(todo)
        sums |= {name: digest for name, (digest, _) in fresh.items()}
        if settled := {name: (state, digest) for name, (digest, state) in fresh.items() if state is not None}:
            _write_cache(cache, known | settled)
    return [sums[name] for name in names]


def _states(names: Sequence[str], paths: Sequence[str]) -> dict[str, State]:
    states, missing = {}, []
    for name, path in zip(names, paths, strict=True):
        try:
            states[name] = _state(os.stat(path))  # noqa: PTH116
        except (OSError, ValueError):
            missing.append(name)
    if missing:
        raise MissingFilesError(missing)
    return states


def _state(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _spend(nbytes: int) -> None:
    limit = _limit.get()
    if limit is None:
        return
    if nbytes > limit.left_bytes:
        raise UnreadError(f"{nbytes:,} bytes were not read")
    limit.left_bytes -= nbytes


def _hash_all(todo: dict[str, str]) -> dict[str, tuple[str, State | None]]:
    with ThreadPoolExecutor(min(_THREADS, len(todo))) as threads:
        hashed = dict(zip(todo, threads.map(_hash, todo.values()), strict=True))
    if missing := [name for name, result in hashed.items() if result is None]:
        raise MissingFilesError(missing)
    return {name: result for name, result in hashed.items() if result is not None}


def _hash(path: str) -> tuple[str, State | None] | None:
    """Digest and state; no state if the content may change again without changing its times; None if unreadable."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            before = _state(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = _state(os.fstat(file.fileno()))
    except (OSError, ValueError):
        return None
    settled = before == after and max(after[1], after[2]) < time.time_ns() - _SETTLED_NS
    return digest, after if settled else None


def _read_cache(path: Path) -> dict[str, tuple[State, str]]:
    try:
        checksum, content = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            return {}
        return {name: ((size, mtime, ctime, inode), digest)
                for name, (size, mtime, ctime, inode, digest) in json.loads(content).items()}  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write_cache(path: Path, entries: dict[str, tuple[State, str]]) -> None:
    content = json.dumps({name: [*state, digest] for name, (state, digest) in entries.items()}).encode()
    with suppress(OSError):  # a cache that cannot be kept costs time only
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def cache_folder() -> Path:
    """The user's cache folder by the XDG Base Directory Specification, which ignores a relative one."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # noqa: PTH117
        return Path(given) / _CACHE_FOLDER
    try:
        return Path.home() / ".cache" / _CACHE_FOLDER
    except RuntimeError:  # no home
        return Path(os.devnull) / _CACHE_FOLDER

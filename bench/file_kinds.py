"""What a file is, told from its first bytes, for errors about files that are not what they should be."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

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


def not_regular(path: Path) -> str | None:
    """``a folder``, ``a named pipe``, ...; None for a regular file. To open what is none may wait for ever.

    Raises OSError as ``Path.stat`` does.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _MODES.get(stat.S_IFMT(mode), "no regular file")


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, also for what is none: reading that could wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def what_is(path: Path) -> str:
    """``an empty file``, ``an HTML page``, ``a text that begins with '...'`` and the like; raises nothing."""
    try:
        return not_regular(path) or of_bytes(_head(path))
    except OSError as problem:
        return f"unreadable ({problem.strerror or problem})"


def of_bytes(head: bytes) -> str:
    """The same of a file's first bytes."""
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
    return _text(head)


def _text(head: bytes) -> str:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        if len(head) < _HEAD or problem.start < len(head) - 4:  # else it is cut within a character
            return BINARY
        text = head[: problem.start].decode("utf-8-sig")
    if any(ord(character) < 32 and character not in "\t\r\n\f\x1b" for character in text):
        return BINARY
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"a text that begins with {first[:40]!a}" if first else "a blank text"


def _head(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, _HEAD)
    finally:
        os.close(descriptor)

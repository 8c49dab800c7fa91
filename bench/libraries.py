"""What the installed peft and transformers offer, without importing them: read by a child process, then remembered."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.environment import child_environ
from bench.errors import BenchError, SpecError
from bench.files import cache_folder, write_atomic

_READER = "bench.library_facts"
_LIMIT_S = 300


class LibraryError(BenchError):
    """What an installed library offers cannot be read."""


@cache
def facts() -> dict[str, Any]:
    """``{"peft": ..., "transformers": ...}`` as ``bench.library_facts`` writes it.

    Raises SpecError if a library is missing, LibraryError if one cannot be imported.
    """
    name = f"{_key()}.json"
    for folder in _folders():
        with suppress(OSError, ValueError):
            remembered: dict[str, Any] = json.loads((folder / name).read_bytes())
            return remembered
    content = _read()
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(folder / name, content)
            break
    read: dict[str, Any] = json.loads(content)
    return read


def _folders() -> Iterator[Path]:
    """The user's cache, then a folder of temporary files for where that cannot be written, as in a container."""
    yield cache_folder() / "libraries"
    # By number: a user of a container may have no name. Others can make this folder first, and theirs is not used.
    user = os.getuid() if hasattr(os, "getuid") else None
    with suppress(OSError):
        folder = Path(tempfile.gettempdir()) / f"peft-freeze-bench-{user}"
        if user is None or not os.path.lexists(folder) or folder.lstat().st_uid == user:
            yield folder


def _key() -> str:
    """Versions and files of the libraries, and the reader; a library that is being edited changes its ``__init__``."""
    words = []
    for package in ("peft", "transformers"):
        try:
            words.append(f"{package}-{version(package)}")
        except PackageNotFoundError:
            raise SpecError(f"the package {package} is not installed: pip install {package}") from None
    digest = hashlib.sha256()
    for module in ("peft", "transformers", _READER):
        spec = importlib.util.find_spec(module)  # locates it, without running it
        assert spec is not None
        assert spec.origin is not None
        digest.update(f"{spec.origin} {os.stat(spec.origin).st_mtime_ns}\n".encode())  # noqa: PTH116
    return "-".join([*words, digest.hexdigest()[:12]])


def _read() -> bytes:
    print("reading what the installed peft and transformers offer (once per version) ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "facts.json"
        command = [sys.executable, "-P", "-W", "ignore", "-m", _READER, str(written)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=False, env=child_environ())
        except subprocess.TimeoutExpired:
            raise LibraryError(f"importing peft and transformers took longer than {_LIMIT_S} s") from None
        if done.returncode:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise LibraryError(f"peft and transformers cannot be imported: {last}; install them again")
        return written.read_bytes()

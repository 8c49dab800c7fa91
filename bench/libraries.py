"""What the installed peft and transformers offer, without importing them: read by a child process, then remembered."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.environment import child_environ
from bench.errors import BenchError, SpecError
from bench.files import cache_folder, sha256_of, write_atomic

_READER = "bench.library_facts"
_LIMIT_S = 300


class LibraryError(BenchError):
    """What an installed library offers cannot be read."""


@cache
def facts() -> dict[str, Any]:
    """``{"peft": ..., "transformers": ...}`` as ``bench.library_facts`` writes it.

    Raises SpecError if a library is missing, LibraryError if one cannot be imported.
    """
    path = cache_folder() / "libraries" / f"{_key()}.json"
    with suppress(OSError, ValueError):
        remembered: dict[str, Any] = json.loads(path.read_bytes())
        return remembered
    content = _read()
    with suppress(OSError):  # a cache that cannot be kept costs time only
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    read: dict[str, Any] = json.loads(content)
    return read


def _key() -> str:
    """Versions of the libraries, and of the reader."""
    try:
        versions = [f"{package}-{version(package)}" for package in ("peft", "transformers")]
    except PackageNotFoundError as error:
        raise SpecError(f"the package {error.name} is not installed: pip install {error.name}") from None
    spec = importlib.util.find_spec(_READER)
    assert spec is not None
    assert spec.origin is not None
    return "-".join([*versions, sha256_of(Path(spec.origin))[:12]])


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

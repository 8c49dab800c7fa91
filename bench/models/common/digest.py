"""The digest by which a record knows its weights. No torch in here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from bench import files
from bench.errors import WeightsError


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over the names and contents of files, in the order given. Raises WeightsError if one is not there
    or cannot be read."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def sha256(path: Path) -> str:
    """Of the content, hex. Raises WeightsError."""
    try:
        return files.sha256_of(path)
    except files.MissingFilesError:
        raise WeightsError(f"{path}: is not there, or may not be read: check the file and its permissions") from None

"""What a cell's result depends on beside its settings: the contents of every file that these name.

A cell's id leaves out where files lie, so that results are portable; the digests say what lay there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import files, registry
from bench.errors import WeightsError
from bench.spec.cell import Cell

METHOD_FILES = re.compile(r"(_path|_file)$|^(adapters|shadow_model)$")
"""Fields of the library's methods that may name a file or folder: tokenizers, saved prompts, statistics, models."""


def data_digest(cell: Cell) -> str:
    """Of annotations and images. Raises DataError if they are not here."""
    digest: str = registry.load("datasets", cell.data.name).digest(cell.data)
    return digest


def weights_digest(cell: Cell) -> str | None:
    """Of the files that the model, and what its methods start from, are built from; null if there are none.

    Raises WeightsError if they are not here.
    """
    own: str | None = registry.load("models", cell.model.family).weights_digest(cell.model)
    named = method_files(cell)
    if not named:
        return own
    total = hashlib.sha256((own or "").encode())
    for path in named:
        total.update(_content(path).encode())
    return total.hexdigest()


def method_files(cell: Cell) -> list[Path]:
    """Files and folders on this machine that the methods name, in the order of the fields."""
    return [Path(name) for name in method_paths(cell) if os.path.exists(name)]  # noqa: PTH110 - some are Hub ids


def method_paths(cell: Cell) -> list[str]:
    """What the methods name as files, folders or Hub ids, in the order of the fields."""
    return [name for method in cell.methods.values() for name in _named(method.model_dump(mode="json"), "method")]


def lacks_files(cell: Cell) -> bool:
    """Whether the methods name a file or folder that is not on this machine; a Hub id is none."""
    return any(Path(name).is_absolute() and not Path(name).exists() for name in method_paths(cell))


def _named(value: Any, field: str) -> Iterator[str]:
    if isinstance(value, dict):
        inner = field if METHOD_FILES.search(field) else None
        for key, child in value.items():
            yield from _named(child, inner or str(key))
    elif isinstance(value, str) and METHOD_FILES.search(field):
        yield value


def _content(path: Path) -> str:
    """SHA-256 (hex) of a file, or over the files of a folder and below, by their names."""
    names = [path.name]
    if path.is_dir():
        names = sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
    try:
        hashes = files.sha256_of_all(path if path.is_dir() else path.parent, names)
    except files.MissingFilesError as error:
        raise WeightsError(f"{path}: {error.names[0]} cannot be read: check its permissions") from None
    listed = "".join(f"{name}\0{own}\n" for name, own in zip(names, hashes, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()

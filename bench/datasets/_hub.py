"""Data sets by their id on the Hugging Face Hub, through the ``datasets`` library (extra ``[hub]``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench import fingerprints
from bench.datasets import _images
from bench.errors import DataError
from bench.settings import DataSettings

if TYPE_CHECKING:
    from PIL.Image import Image


class HubSettings(DataSettings):
    """What the data sets from the Hub have in common."""

    HAS_DEMO: ClassVar[bool] = True
    """Whether specs on this data set come with a scale that needs no download."""

    id: str
    """Id on the Hub, or a local folder in the same layout."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; null for the newest. Ignored for a local folder."""


def load_splits(
    settings: HubSettings, data_files: Mapping[str, str] | None = None, *, configuration: str | None = None
) -> Mapping[str, Any]:
    """Split -> ``datasets.Dataset``, downloaded once and then read from the library's cache.

    Raises DataError if the extra is not installed or the data cannot be had.
    """
    fingerprints.takes_long("loading a data set of the Hub")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data set {settings.name}: needs the package `datasets`; install this project with its [hub] extra: "
            'python -m pip install -e ".[hub]"'
        ) from error
    datasets.disable_progress_bars()
    try:
        if (Path(settings.id) / "dataset_dict.json").is_file():
            return dict(datasets.load_from_disk(settings.id))
        files = None if data_files is None else dict(data_files)
        loaded = datasets.load_dataset(settings.id, configuration, revision=settings.revision, data_files=files)
        return dict(loaded)
    except (OSError, ValueError, LookupError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise unavailable(settings, error) from error


def unavailable(settings: HubSettings, error: Exception) -> DataError:
    """The error to raise when the Hub or the folder does not give what is wanted."""
    demo = "\n  without it: python run_bench.py SPEC --scale demo" if settings.HAS_DEMO else ""
    return DataError(
        f"data set {settings.name}: {settings.id!r} cannot be loaded: {error}\n"
        f"  a Hub id needs the network once; a local folder works without: --set data.id=FOLDER{demo}"
    )


class StoredImages:
    """Image files in a column of tables that was cast to ``datasets.Image(decode=False)``; equal ones have one name."""

    def __init__(self, source: str, tables: Mapping[str, Any], column: str) -> None:
        self._source = source
        self._tables = tables
        self._column = column
        self._rows: dict[str, tuple[str, int]] = {}

    def name(self, split: str, index: int, value: Any) -> str:
        """SHA-256 of the file in that row. Raises DataError if there is none."""
        name = hashlib.sha256(self._bytes(split, index, value)).hexdigest()
        self._rows.setdefault(name, (split, index))
        return name

    def open(self, name: str, question_id: str) -> Image:
        """Decoded to RGB. Raises DataError that names row and question."""
        split, index = self._rows[name]
        data = self._bytes(split, index, self._tables[split][index][self._column])
        return _images.decode_image(data, f"{self._where(split, index)} (question {question_id})")

    def _bytes(self, split: str, index: int, value: Any) -> bytes:
        match value:
            case {"bytes": bytes(data)}:
                return data
            case {"path": str(path)} if Path(path).is_file():
                return Path(path).read_bytes()
        raise DataError(f"{self._where(split, index)}: column {self._column!r} holds no image")

    def _where(self, split: str, index: int) -> str:
        return f"{self._source} ({split}): record {index}"

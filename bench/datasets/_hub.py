"""Data sets by their id on the Hugging Face Hub, through the ``datasets`` library (extra ``[hub]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import DataError
from bench.settings import DataSettings


class HubSettings(DataSettings):
    """What the data sets from the Hub have in common."""

    id: str
    """Id on the Hub, or a local folder in the same layout."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; null for the newest. Ignored for a local folder."""


def load_splits(settings: HubSettings, data_files: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Split -> ``datasets.Dataset``, downloaded once and then read from the library's cache.

    Raises DataError if the extra is not installed or the data cannot be had.
    """
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
        return dict(datasets.load_dataset(settings.id, revision=settings.revision, data_files=files))
    except (OSError, ValueError, LookupError, datasets.exceptions.DatasetsError) as error:
        raise unavailable(settings, error) from error


def unavailable(settings: HubSettings, error: Exception) -> DataError:
    """The error to raise when the Hub or the folder does not give what is wanted."""
    return DataError(
        f"data set {settings.name}: {settings.id!r} cannot be loaded: {error}\n"
        f"  a Hub id needs the network once; a local folder works without: --set data.id=FOLDER\n"
        "  without it: python run_bench.py SPEC --scale demo"
    )

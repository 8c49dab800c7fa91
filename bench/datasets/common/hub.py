"""Data sets by their id on the Hugging Face Hub, through the ``datasets`` library (extra ``[hub]``)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bench.datasets.common import columns, hub_files, images
from bench.datasets.common import files as _files
from bench.datasets.common.notes import Notes
from bench.errors import DataError
from bench.files import refuse_if_limited
from bench.plugins.settings import DataSettings
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

_Opened = TypeVar("_Opened")


class HubSettings(DataSettings):
    """What the data sets from the Hub have in common."""

    HAS_DEMO: ClassVar[bool] = True
    """Whether specs on this data set come with a scale that needs no download."""

    id: str
    """Id on the Hub, or a local folder in the same layout."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; null for the newest. Ignored for a local folder."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the library read."""

    splits: Mapping[str, Any]
    """Split -> ``datasets.Dataset``."""
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> its files; empty where the library does not say."""
    notes: Sequence[str] = ()
    """Files that are in no split or have no row."""


def load_splits(
    settings: HubSettings,
    data_files: Mapping[str, str | list[str]] | None = None,
    *,
    configuration: str | None = None,
) -> Tables:
    """All splits, downloaded once and then read from the library's cache.

    Raises DataError if the extra is not installed, the data cannot be had, or images of a folder are in no split.
    """
    refuse_if_limited("loading a data set of the Hub")
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data set {settings.name}: needs the package `datasets`; install this project with its [hub] extra: "
            'python -m pip install -e ".[hub]"'
        ) from error
    datasets.disable_progress_bars()
    try:
        if any((Path(settings.id) / name).is_file() for name in ("dataset_dict.json", "state.json")):
            stored = datasets.load_from_disk(settings.id)
            return Tables(dict(stored) if isinstance(stored, dict) else {"train": stored})
        files = None if data_files is None else dict(data_files)
        builder = datasets.load_dataset_builder(
            settings.id, configuration, revision=settings.revision, data_files=files
        )
        told = [] if data_files or configuration else hub_files.in_no_split(settings.id, builder)
        builder.download_and_prepare()
        splits = dict(builder.as_dataset())
    except DataError:
        raise
    except (
        *(OSError, ValueError, LookupError, RuntimeError, TypeError, ImportError),
        datasets.exceptions.DatasetsError,
    ) as error:
        _check_configuration(settings, configuration, error)
        raise unavailable(settings, error) from error
    found = hub_files.files_of(builder)
    return Tables(splits, found, [*told, *hub_files.without_row(found, splits, builder)])


def _check_configuration(settings: HubSettings, configuration: str | None, error: Exception) -> None:
    """Raise DataError if the data set has several configurations and none, or none of them, is named."""
    import datasets

    try:
        known = list(datasets.get_dataset_config_names(settings.id, revision=settings.revision))
    except Exception:  # the first error says more
        return
    if configuration is None and len(known) > 1:
        raise DataError(
            f"data set {settings.name}: {settings.id!r} has several configurations: {', '.join(known)}; choose one, "
            f"e.g. `data.configuration: {known[0]}`"
        ) from error
    if configuration is not None and configuration not in known:
        raise DataError(
            f"data set {settings.name}: {settings.id!r} has no configuration {configuration!r}"
            f"{did_you_mean(configuration, known)}; correct data.configuration"
        ) from error


def unavailable(settings: HubSettings, error: Exception) -> DataError:
    """The error to raise when the Hub or the folder does not give what is wanted."""
    demo = "\n  without it: python run_bench.py SPEC --scale demo" if settings.HAS_DEMO else ""
    return DataError(
        f"data set {settings.name}: {settings.id!r} cannot be loaded: {error}\n"
        f"  a Hub id needs the network once; a local folder works without: --set data.id=FOLDER{demo}"
    )


_last: dict[tuple[str, str], Any] = {}


def once(settings: HubSettings, opens: Callable[[], _Opened]) -> _Opened:
    """What ``opens`` returns, kept until another data set is opened or a file of the local folder changes: a cell loads
    its data and takes their digest, and either reads every row."""
    key = settings.model_dump_json(), hub_files.state_of(Path(settings.id))
    if key not in _last:
        _last.clear()
        _last[key] = opens()
    opened: _Opened = _last[key]
    return opened


def columns_of(source: str, table: Any, names: Iterable[str]) -> Any:
    """The table with these columns only (of a nested name its first step), files as they are, not decoded.

    Raises DataError for a name that the table does not have.
    """
    wanted = []
    for name in names:
        column = name if name in table.column_names else name.partition(".")[0]
        if column not in table.column_names:
            raise DataError(f"{source}: there is no column {name!r}{did_you_mean(name, table.column_names)}")
        wanted.append(column)
    table = table.select_columns(list(dict.fromkeys(wanted)))
    for column in table.column_names:
        feature = table.features[column]
        if (changed := _undecoded(feature)) != feature:
            table = table.cast_column(column, changed)
    return table


def _undecoded(feature: Any) -> Any:
    """The same feature with files of every kind as bytes and path."""
    import dataclasses

    if isinstance(feature, dict):
        return {name: _undecoded(child) for name, child in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(child) for child in feature]
    if hasattr(feature, "decode"):  # Image, Audio, Video, ...
        return dataclasses.replace(feature, decode=False)
    if hasattr(feature, "feature"):  # a list
        return dataclasses.replace(feature, feature=_undecoded(feature.feature))
    return feature


class StoredImages:
    """Image files in a column of tables that ``columns_of`` made; equal ones have one name."""

    def __init__(self, source: str, tables: Mapping[str, Any], column: str, notes: Notes) -> None:
        self._source = source
        self._tables = tables
        self._column = column
        self._notes = notes
        self._rows: dict[str, tuple[str, int]] = {}

    def name(self, split: str, index: int, value: Any) -> str:
        """SHA-256 of the file in that row. Raises DataError if there is none, or there are several."""
        name = hashlib.sha256(self._bytes(split, index, value)).hexdigest()
        self._rows.setdefault(name, (split, index))
        return name

    def open(self, name: str, question_id: str) -> Image:
        """Decoded to RGB. Raises DataError that names row and question."""
        split, index = self._rows[name]
        where = self._where(split, index)
        value = columns.value_of(columns.Row(where, self._tables[split][index], index), self._column)
        data = self._bytes(split, index, value)
        return images.decode_image(data, f"{where} (question {question_id})", self._notes)

    def _bytes(self, split: str, index: int, value: Any) -> bytes:
        """Of an image as the library, or a plain table, stores it."""
        match value:
            case bytes():
                return value
            case {"bytes": bytes(data)}:
                return data
            case {"path": str(path)} if (file := self._file(path)) is not None:
                return file.read_bytes()
            case [one]:
                return self._bytes(split, index, one)
            case [_, _, *_]:
                problem = f"holds {len(value)} images; name one: `data.columns.image: {self._column}.0`"
            case str():
                problem = "holds texts; a table with names of image files is read by `data: {name: table}`"
            case _:
                problem = "holds no image"
        raise DataError(f"{self._where(split, index)}: column {self._column!r} {problem}")

    def _file(self, path: str) -> Path | None:
        """A path that the library made, or one below the local folder."""
        if Path(path).is_absolute():
            return Path(path) if Path(path).is_file() else None
        if not Path(self._source).is_dir():
            return None
        file = _files.image_path(Path(self._source), path)
        return file if file.is_file() else None

    def _where(self, split: str, index: int) -> str:
        return f"{self._source} ({split}): record {index}"

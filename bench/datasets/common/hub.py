"""Data sets by their id on the Hugging Face Hub, through the ``datasets`` library (extra ``[hub]``)."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.datasets.common import images
from bench.datasets.common.dataset import DataSet, Notes, encode_examples
from bench.datasets.common.rows import Row
from bench.errors import DataError
from bench.files import refuse_if_limited
from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_DATA = ("readme.md", "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "license")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_DECLARED = re.compile(r"^configs:", re.MULTILINE)
"""In the front matter of a README: its author said which files belong to which split."""


class HubSettings(DataSettings):
    """Settings of data sets from the Hub."""

    HAS_DEMO: ClassVar[bool] = True
    """Whether specs on this data set come with a scale that needs no download."""

    id: str
    """Id on the Hub, or a local folder in the same layout."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; null for the newest. Ignored for a local folder."""

    def unavailable(self, error: Exception) -> DataError:
        """The error to raise where the Hub or the folder does not give what is wanted."""
        demo = "\n  without it: python run_bench.py SPEC --scale demo" if self.HAS_DEMO else ""
        return DataError(
            f"data set {self.name}: {self.id!r} cannot be loaded: {error}\n"
            f"  a Hub id needs the network once; a local folder works without: --set data.id=FOLDER{demo}"
        )


class HubTables:
    """The library's tables of a data set, read from its cache after the first download, and the images in them.

    Raises DataError if the extra is not installed, the data cannot be had, or images of a folder are in no split.
    """

    def __init__(
        self,
        settings: HubSettings,
        data_files: Mapping[str, str | list[str]] | None = None,
        *,
        configuration: str | None = None,
    ) -> None:
        self._settings = settings
        self.notes = Notes()
        self.files: dict[str, list[str]] = {}
        """Split -> its files, as paths or addresses; empty where the library does not say."""
        self._rows: dict[str, tuple[str, int, str]] = {}
        """Name of an image -> split, row and column of the first of its kind."""
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
            self.tables = dict(self._load(None if data_files is None else dict(data_files), configuration))
        except DataError:
            raise
        except (
            *(OSError, ValueError, LookupError, RuntimeError, TypeError, ImportError),
            datasets.exceptions.DatasetsError,
        ) as error:
            self._check_configuration(configuration, error)
            raise settings.unavailable(error) from error

    def _load(self, data_files: Mapping[str, str | list[str]] | None, configuration: str | None) -> Mapping[str, Any]:
        import datasets

        source = self._settings.id
        if any((Path(source) / name).is_file() for name in ("dataset_dict.json", "state.json")):
            stored = datasets.load_from_disk(source)
            return stored if isinstance(stored, dict) else {"train": stored}
        revision = self._settings.revision
        builder = datasets.load_dataset_builder(source, configuration, revision=revision, data_files=data_files)
        self.files = {str(k): list(map(str, files)) for k, files in (builder.config.data_files or {}).items()}
        if not data_files and not configuration:
            self._check_all_in_splits(builder)
        builder.download_and_prepare()
        tables: Mapping[str, Any] = builder.as_dataset()
        if "imagefolder" in type(builder).__module__:
            self._note_images_without_row(tables)
        return tables

    def _check_configuration(self, configuration: str | None, error: Exception) -> None:
        """Raise DataError if the data set has several configurations and none, or an unknown one, is named."""
        import datasets

        source = self._settings.id
        try:
            known = list(datasets.get_dataset_config_names(source, revision=self._settings.revision))
        except Exception:  # the first error says more
            return
        if configuration is None and len(known) > 1:
            problem = (
                f"has several configurations: {', '.join(known)}; choose one, e.g. `data.configuration: {known[0]}`"
            )
        elif configuration is not None and configuration not in known:
            hint = did_you_mean(configuration, known)
            problem = f"has no configuration {configuration!r}{hint}; correct data.configuration"
        else:
            return
        raise DataError(f"data set {self._settings.name}: {source!r} {problem}") from error

    def _check_all_in_splits(self, builder: Any) -> None:
        """Note data files of a local folder that are in no split. Raises DataError if these are images."""
        # The library sorts files by words such as ``train`` and ``test`` in their names, and leaves out all others as
        # soon as one has such a word.
        root = Path(self._settings.id)
        read = {Path(file).resolve() for files in self.files.values() for file in files}
        readme = root / "README.md"
        declared = readme.is_file() and _DECLARED.search(readme.read_text(encoding="utf-8", errors="replace"))
        if not root.is_dir() or not read or declared:
            return
        suffixes = {file.suffix.lower() for file in read if file.name.lower() not in _METADATA}
        is_data = images.is_image if suffixes & images.SUFFIXES else lambda file: file.suffix in suffixes
        files = [file for file in _data_files(root) if file.resolve() in read or is_data(file)]
        lost = sorted(file.relative_to(root).as_posix() for file in files if file.resolve() not in read)
        by_name = [name for name in lost if Path(name).suffix.lower() in getattr(builder, "EXTENSIONS", ())]
        if by_name:
            raise DataError(
                f"{root}: {len(by_name):,} of {len(files):,} files are in no split, e.g. {by_name[0]}: the library "
                "sorts files by words such as train, test, dev or val in their names as soon as one has such a word; "
                "rename those, put all files into the folders train/ and test/, or say which belong where: "
                "`data.data_files: {train: 'PATTERN', test: 'PATTERN'}`"
            )
        if lost:
            problem = "files are in no split and were not read"
            self.notes.add(f"{len(lost):,} of {len(files):,} {problem}", lost[0])

    def _note_images_without_row(self, tables: Mapping[str, Any]) -> None:
        for split, files in self.files.items():
            paths = [Path(file) for file in files if Path(file).name.lower() not in _METADATA]
            found = sum(path.is_file() and images.is_image(path) for path in paths)
            if found == len(paths) != len(tables[split]):
                self.notes.add(f"of {found:,} image files of the split {split}, {len(tables[split]):,} became rows")

    # --- rows and classes ---

    def source(self, split: str) -> str:
        """Name of a split for errors."""
        return f"{self._settings.id} ({split})"

    def select(self, split: str, names: Iterable[str]) -> None:
        """Keep these columns of a split (of a nested name its first step), with files as they are, not decoded.

        Raises DataError for a name that the table does not have.
        """
        table, wanted = self.tables[split], []
        for name in names:
            column = name if name in table.column_names else name.partition(".")[0]
            if column not in table.column_names:
                hint = did_you_mean(name, table.column_names)
                raise DataError(f"{self.source(split)}: there is no column {name!r}{hint}")
            wanted.append(column)
        table = table.select_columns(list(dict.fromkeys(wanted)))
        for column, feature in table.features.items():
            if (changed := _undecoded(feature)) != feature:
                table = table.cast_column(column, changed)
        self.tables[split] = table

    def rows(self, split: str) -> Iterator[Row]:
        """Rows of a split, read as they are asked for."""
        where = f"{self.source(split)}: record"
        return (Row(f"{where} {number}", fields, number) for number, fields in enumerate(self.tables[split]))

    def class_names(self, split: str, column: str | None) -> list[str] | None:
        """Names of the classes 0, 1, ... in a column, as the split's own Parquet files say them, else as the library
        does, which takes those of the first file for all splits. Null if it holds no classes.

        Raises DataError if files of the split disagree.
        """
        if column is None or (loaded := _class_names(self.tables[split].features, column)) is None:
            return None
        stated: dict[tuple[str, ...], str] = {}
        for file in self.files.get(split, ()):
            if file.endswith(".parquet") and (names := _class_names(_parquet_features(file), column)) is not None:
                stated.setdefault(tuple(names), file)
        if len(stated) > 1:
            (names_1, file_1), (names_2, file_2) = list(stated.items())[:2]
            raise DataError(
                f"column {column!r}: classes are {', '.join(names_1):.200} in {file_1}, but {', '.join(names_2):.200} "
                f"in {file_2}; write them with the same names in the same order"
            )
        return list(next(iter(stated))) if stated else loaded

    # --- images ---

    def image_name(self, split: str, column: str, row: Row, value: Any) -> str:
        """SHA-256 of the file in a row, by which it is opened; equal images have one name.

        Raises DataError if there is none, or if there are several.
        """
        name = hashlib.sha256(self._content(column, row, value)).hexdigest()
        self._rows.setdefault(name, (split, row.number, column))
        return name

    def data_set(self, splits: Mapping[str, Sequence[Example]]) -> DataSet:
        """The opened data set, whose images are those of ``image_name``."""

        def image(example: Example) -> Image:
            split, number, column = self._rows[example.image_name]
            row = Row(f"{self.source(split)}: record {number}", self.tables[split][number], number)
            content = self._content(column, row, row.value(column))
            return images.decode_image(content, f"{row.where} (question {example.question_id})", self.notes)

        return DataSet(
            splits=splits,
            image=image,
            digest=lambda: hashlib.sha256(encode_examples(splits)).hexdigest(),
            image_digests=list,
            kept_notes=self.notes,
        )

    def _content(self, column: str, row: Row, value: Any) -> bytes:
        """Bytes of an image as the library, or a plain table, stores it."""
        match value:
            case bytes():
                return value
            case {"bytes": bytes(content)}:
                return content
            case {"path": str(path)} if (file := self._file(path)) is not None:
                return file.read_bytes()
            case [only]:
                return self._content(column, row, only)
            case [_, _, *_]:
                raise row.error(column, f"holds {len(value)} images; name one: `data.columns.image: {column}.0`")
            case str():
                raise row.error(column, "holds texts; a table with names of files is read by `data: {name: table}`")
        raise row.error(column, "holds no image")

    def _file(self, path: str) -> Path | None:
        """A path that the library made, or one below the local folder."""
        file, root = Path(path), Path(self._settings.id)
        if not file.is_absolute():
            if not root.is_dir():
                return None
            file = images.image_path(root, path)
        return file if file.is_file() else None


_last: dict[tuple[str, str], DataSet] = {}


def open_once(settings: HubSettings, load: Callable[[], DataSet]) -> DataSet:
    """What ``load`` returns, kept until another data set is opened or a file of the local folder changes."""
    # A cell loads its data and takes their digest, and either reads every row.
    key = settings.model_dump_json(), _state(Path(settings.id))
    if key not in _last:
        _last.clear()
        _last[key] = load()
    return _last[key]


def _state(folder: Path) -> str:
    """Changes when a file of a local folder does; empty for an id on the Hub."""
    if not folder.is_dir():
        return ""
    stats = [(file.as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(_data_files(folder))]
    return hashlib.sha256(repr(stats).encode("utf-8", "surrogatepass")).hexdigest()


def _data_files(root: Path) -> list[Path]:
    def is_hidden(file: Path) -> bool:
        return any(part.startswith((".", "__")) for part in file.relative_to(root).parts)

    return [f for f in root.rglob("*") if f.is_file() and f.name.lower() not in _NO_DATA and not is_hidden(f)]


def _undecoded(feature: Any) -> Any:
    """The same feature with files of every kind as bytes and path."""
    if isinstance(feature, dict):
        return {name: _undecoded(child) for name, child in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(child) for child in feature]
    if hasattr(feature, "decode"):  # Image, Audio, Video, ...
        return dataclasses.replace(feature, decode=False)
    if hasattr(feature, "feature"):  # a list
        return dataclasses.replace(feature, feature=_undecoded(feature.feature))
    return feature


def _parquet_features(file: str) -> Any:
    import datasets
    import pyarrow.parquet

    if "://" in file:
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(file, "rb") as stream:
            schema = pyarrow.parquet.read_schema(stream)
    else:
        schema = pyarrow.parquet.read_schema(file)
    return datasets.Features.from_arrow_schema(schema)


def _class_names(features: Any, column: str) -> list[str] | None:
    """Names of the classes of a column, also of a nested one; null if it holds no classes."""
    from datasets import ClassLabel

    feature = features.get(column)
    if feature is None:
        feature = features
        for step in column.split("."):
            if isinstance(feature, dict):
                feature = feature.get(step)
            elif step.lstrip("-").isdigit():
                feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
            else:
                return None
    return list(feature.names) if isinstance(feature, ClassLabel) else None

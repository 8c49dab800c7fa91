"""Data sets by their id on the Hugging Face Hub, through the ``datasets`` library (extra ``[hub]``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bench.datasets.common import images
from bench.datasets.common.dataset import DataSet, Notes, encode_examples
from bench.datasets.common.rows import SourceRow
from bench.errors import DataError
from bench.files import refuse_if_limited
from bench.plugins import DataSettings, Example

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_DATA = ("readme.md", "config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "license")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_BATCH = 256
_NO_CONFIGURATION = re.compile("Config name is missing|BuilderConfig .* not found")
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
        """Error for data that the Hub or the local folder does not provide."""
        config = (
            "\n  one of several configurations: --set data.configuration=NAME"
            if _NO_CONFIGURATION.search(str(error))
            else ""
        )
        demo = "\n  without it: python run_bench.py SPEC --scale demo" if self.HAS_DEMO else ""
        return DataError(
            f"data set {self.name}: {self.id!r} cannot be loaded: {error}{config}\n"
            f"  a Hub id needs the network once; a local folder works without: --set data.id=FOLDER{demo}"
        )


_Settings = TypeVar("_Settings", bound=HubSettings)


class HubTables:
    """Tables of a data set, from the library's cache after the first download, and the images in them.

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
        """Split -> files, as paths or URLs; empty for a data set that was saved to disk."""
        self._stored: dict[str, tuple[str, int, str]] = {}
        """Name of an image -> its split, row and column."""
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
            self.tables = self._load(data_files, configuration)
        except DataError:
            raise
        except (
            *(OSError, ValueError, LookupError, RuntimeError, TypeError, ImportError),
            datasets.exceptions.DatasetsError,
        ) as error:
            raise settings.unavailable(error) from error

    def _load(self, data_files: Mapping[str, str | list[str]] | None, configuration: str | None) -> dict[str, Any]:
        import datasets

        root = Path(self._settings.id)
        if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
            stored = datasets.load_from_disk(root)  # one table, or one for each split
            return dict(stored) if isinstance(stored, dict) else {"train": stored}
        builder = datasets.load_dataset_builder(
            self._settings.id, configuration, revision=self._settings.revision, data_files=data_files
        )
        self.files = {str(split): list(map(str, files)) for split, files in (builder.config.data_files or {}).items()}
        if not data_files and not configuration and root.is_dir():
            self._check_all_in_splits(root, getattr(builder, "EXTENSIONS", ()))
        builder.download_and_prepare()
        tables = dict(builder.as_dataset())
        # With a metadata file, the library makes rows of the images listed there alone.
        for split, files in self.files.items() if "imagefolder" in type(builder).__module__ else ():
            paths = [Path(file) for file in files if Path(file).name.lower() not in _METADATA]
            n = len(tables[split])
            if len(paths) != n and all(path.is_file() and images.is_image(path) for path in paths):
                self.notes.add(f"of {len(paths):,} image files of the split {split}, {n:,} became rows")
        return tables

    def _check_all_in_splits(self, root: Path, image_suffixes: Sequence[str]) -> None:
        """Note data files of a local folder that are in no split. Raises DataError if these are images."""
        # The library sorts files by words such as ``train`` and ``test`` in their names, and leaves out all others as
        # soon as one has such a word.
        read = {Path(file).resolve() for files in self.files.values() for file in files}
        readme = root / "README.md"
        declared = readme.is_file() and _DECLARED.search(readme.read_text(encoding="utf-8", errors="replace"))
        if not read or declared:
            return
        suffixes = {file.suffix.lower() for file in read if file.name.lower() not in _METADATA}
        is_data = images.is_image if suffixes & images.SUFFIXES else lambda file: file.suffix in suffixes
        files = [file for file in _data_files(root) if file.resolve() in read or is_data(file)]
        lost = sorted(file.relative_to(root).as_posix() for file in files if file.resolve() not in read)
        by_name = [name for name in lost if Path(name).suffix.lower() in image_suffixes]
        if by_name:
            raise DataError(
                f"{root}: {len(by_name):,} of {len(files):,} files are in no split, e.g. {by_name[0]}: the library "
                "sorts files by words such as train, test, dev or val in their names as soon as one has such a word; "
                "rename those, put all files into the folders train/ and test/, or say which belong where: "
                "`data.data_files: {train: 'PATTERN', test: 'PATTERN'}`"
            )
        if lost:
            self.notes.add(f"{len(lost):,} of {len(files):,} files are in no split and were not read", lost[0])

    def source(self, split: str) -> str:
        """Name of a split for errors."""
        return f"{self._settings.id} ({split})"

    def select(self, split: str, names: Iterable[str]) -> None:
        """Keep these columns of a split; of a dotted name, the column of its first step."""
        known = self.tables[split].column_names
        wanted = {name if name in known else name.partition(".")[0] for name in names}
        self.tables[split] = self.tables[split].select_columns([column for column in known if column in wanted])

    def rows(self, split: str) -> Iterator[SourceRow]:
        """Rows of a split, read in batches."""
        # As Arrow, since rows in the library's default format decode images, sounds and videos.
        batches = self.tables[split].with_format("arrow").iter(_BATCH)
        for number, fields in enumerate(fields for batch in batches for fields in batch.to_pylist()):
            yield self._row(split, number, fields)

    def _row(self, split: str, number: int, fields: Mapping[str, Any]) -> SourceRow:
        return SourceRow(f"{self.source(split)}: record {number}", fields, number)

    def class_names(self, split: str, column: str) -> list[str] | None:
        """Names of the classes 0, 1, ... in a column; null if it holds no classes. Raises DataError if files of the
        split disagree."""
        names = _class_names(self.tables[split].features, column)
        stated: dict[tuple[str, ...], str] = {}
        # The library takes the names in the first file for all splits, so that a split with another order of classes
        # would be read wrongly: what the Parquet files of the split say counts.
        for file in self.files.get(split, ()) if names else ():
            if file.endswith(".parquet") and (found := _class_names(_parquet_features(file), column)) is not None:
                stated.setdefault(tuple(found), file)
        if len(stated) > 1:
            (first, file), (second, other) = list(stated.items())[:2]
            raise DataError(
                f"column {column!r}: classes are {', '.join(first):.200} in {file}, but {', '.join(second):.200} in "
                f"{other}; write them with the same names in the same order"
            )
        return list(*stated) if stated else names

    def image_name(self, split: str, column: str, row: SourceRow, value: Any) -> str:
        """SHA-256 of the image file in a row, by which it is opened. Raises DataError if there is not exactly one."""
        name = hashlib.sha256(self._content(column, row, value)).hexdigest()
        self._stored.setdefault(name, (split, row.number, column))
        return name

    def data_set(self, splits: Mapping[str, Sequence[Example]]) -> DataSet:
        """The opened data set, whose images are those of ``image_name``."""

        def image(example: Example) -> Image:
            split, number, column = self._stored[example.image_name]
            row = self._row(split, number, self.tables[split].with_format("arrow")[number].to_pylist()[0])
            content = self._content(column, row, row.value(column))
            return images.decode_image(content, f"{row.where} (question {example.question_id})", self.notes)

        def digest() -> str:
            return hashlib.sha256(encode_examples(splits)).hexdigest()

        return DataSet(splits=splits, image=image, digest=digest, image_digests=list, kept_notes=self.notes)

    def _content(self, column: str, row: SourceRow, value: Any) -> bytes:
        """Bytes of an image in any form that the library or a plain table stores."""
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
        """File in the library's cache or below the local folder; null if absent."""
        file, root = Path(path), Path(self._settings.id)
        if not file.is_absolute():
            if not root.is_dir():
                return None
            file = images.image_path(root, path)
        return file if file.is_file() else None


_last: dict[tuple[str, str], DataSet] = {}


def opened_once(load: Callable[[_Settings], DataSet]) -> Callable[[_Settings], DataSet]:
    """Cache the result of ``load`` until another data set is opened or a file of the local folder changes."""

    @wraps(load)
    def kept(settings: _Settings) -> DataSet:
        # A cell loads its data and takes their digest, and either reads every row.
        root = Path(settings.id)
        files = sorted(_data_files(root)) if root.is_dir() else []
        key = settings.model_dump_json(), repr([(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files])
        if key not in _last:
            _last.clear()
            _last[key] = load(settings)
        return _last[key]

    return kept


def _data_files(root: Path) -> list[Path]:
    def is_hidden(file: Path) -> bool:
        return any(part.startswith((".", "__")) for part in file.relative_to(root).parts)

    return [f for f in root.rglob("*") if f.is_file() and f.name.lower() not in _NO_DATA and not is_hidden(f)]


def _parquet_features(file: str) -> Any:
    import datasets
    import fsspec  # type: ignore[import-untyped]
    import pyarrow.parquet

    with fsspec.open(file, "rb") as stream:  # a path, or an address on the Hub
        return datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(stream))


def _class_names(features: Any, column: str) -> list[str] | None:
    """Names of the classes of a column, also of a nested one; null if it holds no classes."""
    from datasets import ClassLabel

    steps = [column] if column in features else column.split(".")
    feature = features
    for step in steps:
        if isinstance(feature, dict):
            feature = feature.get(step)
        elif step.lstrip("-").isdigit():
            feature = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        else:
            return None
    return list(feature.names) if isinstance(feature, ClassLabel) else None

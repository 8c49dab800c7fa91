"""Any data set of the Hugging Face Hub, with a mapping from columns to what an example needs; extra ``[hub]``.

The names of a ``ClassLabel`` column are the classes, and an ``Image`` column holds the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.datasets import _columns, _files, _hub, _splits
from bench.errors import DataError
from bench.protocols import Example
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image


class HubTableSettings(_hub.HubSettings, _columns.ColumnSettings):
    """``id``, and ``columns`` as the page of the data set names them."""

    HAS_DEMO: ClassVar[bool] = False

    name: Literal["hub"]
    configuration: str | None = None
    """Which of the data set's configurations (subsets), e.g. ``mrpc`` of ``nyu-mll/glue``; null if it has but one."""


Settings = HubTableSettings


def digest(settings: HubTableSettings) -> str:
    """See ``DataPlugin.digest``: of all texts, labels and image contents; takes the seconds that loading takes."""
    return load(settings).digest()


def load(settings: HubTableSettings) -> HubTable:
    """See ``DataPlugin.load``."""
    tables = _hub.load_splits(settings, configuration=settings.configuration)
    for split in _splits.wanted(settings):
        if split not in tables:
            problem = f"there is no split {split!r}{did_you_mean(split, list(tables))}"
            raise DataError(
                f"data set {settings.name}: {settings.id}: {problem}; see data.train_split, data.test_split"
            )
    return HubTable(settings, {split: tables[split] for split in _splits.wanted(settings)})


class HubTable(_files.Splits):
    """``OpenedData`` on the library's tables."""

    def __init__(self, settings: HubTableSettings, tables: Mapping[str, Any]) -> None:
        self._settings = settings
        column = settings.columns.image
        if column is not None:
            tables = {split: _undecoded(self._source(split), table, column) for split, table in tables.items()}
        self._images = _hub.StoredImages(settings.id, tables, str(column))
        super().__init__({split: self._examples(split, table) for split, table in tables.items()})

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        return self._images.open(example.image_name, example.question_id)

    def digest(self) -> str:
        """SHA-256 over all examples; an image's name is the hash of its content."""
        return hashlib.sha256(repr(sorted(self._splits.items())).encode("utf-8", "surrogatepass")).hexdigest()

    def _source(self, split: str) -> str:
        return f"{self._settings.id} ({split})"

    def _examples(self, split: str, table: Any) -> Sequence[Example]:
        def image(row: _columns.Row, value: Any) -> str:
            return self._images.name(split, row.number, value)

        source = self._source(split)
        names = _class_names(table, self._settings.columns.label)
        mapper = _columns.Mapper(settings=self._settings, source=source, image=image, class_names=names)
        mapper.check(table.column_names)
        rows = (_columns.Row(f"{source}: record {index}", row, index) for index, row in enumerate(table))
        return mapper.examples(rows)


def _undecoded(source: str, table: Any, column: str) -> Any:
    """The same table with the image files as they are, not as pictures."""
    from datasets import Image

    if column not in table.column_names:
        raise DataError(
            f"{source}: there is no column {column!r}{did_you_mean(column, table.column_names)}; "
            "correct data.columns.image"
        )
    if not isinstance(table.features[column], Image):
        raise DataError(f"{source}: column {column!r} holds no images, but {table.features[column]!r:.80}")
    return table.cast_column(column, Image(decode=False))


def _class_names(table: Any, column: str | None) -> Sequence[str] | None:
    from datasets import ClassLabel

    feature = table.features.get(column)
    return list(feature.names) if isinstance(feature, ClassLabel) else None

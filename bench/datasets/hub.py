"""Any data set of the Hugging Face Hub, with a mapping from columns to what an example needs; extra ``[hub]``.

The names of a ``ClassLabel`` column are the classes, as each split's own files say them. Images are a column of the
library's ``Image``, of bytes, of ``{bytes, path}``, or of lists of one of these. No other columns are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bench.datasets.common import classes, columns, files, hub, hub_files, splits
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image


class HubTableSettings(hub.HubSettings, columns.ColumnSettings):
    """``id``, and ``columns`` as the page of the data set names them."""

    HAS_DEMO: ClassVar[bool] = False

    name: Literal["hub"]
    configuration: str | None = None
    """Which of the data set's configurations (subsets), e.g. ``mrpc`` of ``nyu-mll/glue``; null if it has but one."""
    data_files: dict[str, str | list[str]] | None = None
    """Split -> file, or pattern of files, below ``id``; null: as the library finds them, by their names."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """Of a data set without a split to test on: this share of ``train_split`` becomes ``test_split``, drawn from each
    class alike. Rows with the same image or, without images, the same text stay together."""
    test_seed: int = 0
    """Seed of that draw."""

    @model_validator(mode="after")
    def _agree(self) -> HubTableSettings:
        if self.test_share is not None and ("+" in self.train_split or self.train_split == self.test_split):
            raise ValueError("with `test_share`, train_split must name one split, and test_split another name")
        if self.test_share is None and self.test_seed:
            raise ValueError("test_seed goes with `test_share`")
        return self


Settings = HubTableSettings


def digest(settings: HubTableSettings) -> str:
    """See ``DataPlugin.digest``: of all texts, labels and image contents; takes the seconds that loading takes."""
    return load(settings).digest()


def load(settings: HubTableSettings) -> HubTable:
    """See ``DataPlugin.load``."""
    return hub.once(settings, lambda: _load(settings))


def _load(settings: HubTableSettings) -> HubTable:
    found = hub.load_splits(settings, settings.data_files, configuration=settings.configuration)
    if settings.test_share is None:
        wanted = splits.wanted(settings)
    else:
        wanted = (settings.train_split,)
        if settings.test_split in found.splits:
            raise DataError(
                f"data set {settings.name}: {settings.id} has a split {settings.test_split!r}; remove data.test_share, "
                "or give the drawn split another name with data.test_split"
            )
    for split in wanted:
        if split not in found.splits:
            known = list(map(str, found.splits))
            draw = "; without a split to test on, set `data.test_share: 0.2`" if len(known) == 1 else ""
            problem = f"there is no split {split!r}{did_you_mean(split, known)}"
            raise DataError(
                f"data set {settings.name}: {settings.id}: {problem}; see data.train_split, data.test_split{draw}"
            )
    return HubTable(settings, found, wanted)


class HubTable(files.Splits):
    """``OpenedData`` on the library's tables."""

    def __init__(self, settings: HubTableSettings, found: hub.Tables, wanted: Sequence[str]) -> None:
        super().__init__({})
        self._settings = settings
        self._files = found.files
        self._classes = columns.UsedNames()
        tables = {split: self._mapped(split, found.splits[split]) for split in wanted}
        self._images = hub.StoredImages(settings.id, tables, str(settings.columns.image), self.kept_notes)
        self._splits = {split: self._examples(split, table) for split, table in tables.items()}
        self._classes.check(settings, settings.id)
        if settings.test_share is not None:
            self._splits = self._drawn(settings.test_share, self._splits[settings.train_split])
        for note in found.notes:
            self.kept_notes.add(note)
        if settings.columns.label is not None:
            classes.note_classes(self._splits.values(), self.kept_notes)

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        return self._images.open(example.image_name, example.question_id)

    def image_digests(self, names: Sequence[str]) -> list[str]:
        """See ``OpenedData``; the names are digests."""
        return list(names)

    def digest(self) -> str:
        """SHA-256 over all examples; an image's name is the hash of its content."""
        return hashlib.sha256(files.examples_text(self._splits).encode("utf-8", "surrogatepass")).hexdigest()

    def _mapped(self, split: str, table: Any) -> Any:
        """The table with the columns that are mapped, and no other."""
        source = self._source(split)
        self._mapper(split, source, table).check(table.column_names)
        known = table.column_names
        names = [name for place, value in self._settings.columns for name in columns.names_in(place, value, known)]
        return hub.columns_of(source, table, names)

    def _drawn(self, share: float, examples: Sequence[Example]) -> Mapping[str, Sequence[Example]]:
        settings = self._settings
        by_class = settings.columns.label is not None
        parts = splits.drawn(examples, share, seed=settings.test_seed, by_class=by_class)
        if not all(parts):
            raise DataError(
                f"{self._source(settings.train_split)}: too few different examples to draw a test split from"
            )
        return dict(zip((settings.train_split, settings.test_split), parts, strict=True))

    def _source(self, split: str) -> str:
        return f"{self._settings.id} ({split})"

    def _mapper(self, split: str, source: str, table: Any) -> columns.Mapper:
        def image(row: columns.Row, value: Any) -> str:
            return self._images.name(split, row.number, value)

        return columns.Mapper(
            settings=self._settings,
            source=source,
            image=image,
            class_names=self._class_names(split, table),
            used=self._classes,
            notes=self.kept_notes,
        )

    def _class_names(self, split: str, table: Any) -> Sequence[str] | None:
        """As the split's own files say, else as the library does."""
        column = self._settings.columns.label
        if column is None:
            return None
        loaded = hub_files.names_of(table.features, column)
        return None if loaded is None else hub_files.class_names(self._files.get(split, ()), column) or loaded

    def _examples(self, split: str, table: Any) -> Sequence[Example]:
        source = self._source(split)
        rows = (columns.Row(f"{source}: record {index}", row, index) for index, row in enumerate(table))
        return self._mapper(split, source, table).examples(rows)

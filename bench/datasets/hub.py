"""Any data set of the Hugging Face Hub, with a mapping from columns to what an example needs; extra ``[hub]``.

The names of a ``ClassLabel`` column are the classes, as the files of each split name them. Images are a column of the
library's ``Image``, of bytes, of ``{bytes, path}``, or of lists of one of these. No other columns are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from bench.datasets.common.columns import ColumnSettings, Mapper
from bench.datasets.common.dataset import DataSet, draw_split, splits_in_use
from bench.datasets.common.hub import HubSettings, HubTables, opened_once
from bench.errors import DataError
from bench.plugins import Example
from bench.registry import did_you_mean


class HubTableSettings(HubSettings, ColumnSettings):
    """``id`` on the Hub, and ``columns`` named as on the page of the data set."""

    HAS_DEMO: ClassVar[bool] = False

    name: Literal["hub"]
    configuration: str | None = None
    """Configuration (subset) of the data set, e.g. ``mrpc`` of ``nyu-mll/glue``; null if it has only one."""
    data_files: dict[str, str | list[str]] | None = None
    """Split -> file, or pattern of files, below ``id``; null: files that the library finds by their names."""
    test_share: float | None = Field(default=None, gt=0, lt=1)
    """For a data set without a test split: share of ``train_split`` that becomes ``test_split``, drawn from each class
    alike. Rows with the same image or, without images, the same text stay together."""
    test_seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _check_share(self) -> Self:
        if self.test_share is not None and ("+" in self.train_split or self.train_split == self.test_split):
            raise ValueError("with `test_share`, train_split must name one split, and test_split another name")
        if self.test_share is None and self.test_seed:
            raise ValueError("test_seed goes with `test_share`")
        return self


Settings = HubTableSettings


def digest(settings: HubTableSettings) -> str:
    """SHA-256 over all texts, labels and image contents; as slow as loading."""
    return load(settings).digest()


@opened_once
def load(settings: HubTableSettings) -> DataSet:
    """The splits in use. Raises DataError that names the nearest split or column for an unknown one."""
    hub = HubTables(settings, settings.data_files, configuration=settings.configuration)
    columns = settings.columns
    wanted = _wanted(settings, list(map(str, hub.tables)))
    mapper = Mapper(settings, hub.notes)
    # All splits are checked before rows of any are read, which may take minutes.
    for split in wanted:
        known = hub.tables[split].column_names
        mapper.check(hub.source(split), known)
        hub.select(split, [name for _, name in columns.used(known)])
    splits: dict[str, Sequence[Example]] = {}
    for split in wanted:
        image = partial(hub.image_name, split, str(columns.image))
        names = hub.class_names(split, columns.label) if columns.label else None
        splits[split] = mapper.examples(hub.source(split), hub.rows(split), image=image, class_names=names)
    if settings.test_share is not None:
        examples, by_class = splits[settings.train_split], columns.label is not None
        drawn = draw_split(examples, settings.test_share, seed=settings.test_seed, by_class=by_class)
        if not all(drawn.values()):
            source = hub.source(settings.train_split)
            raise DataError(f"{source}: too few different examples to draw a test split from")
        splits = {settings.train_split: drawn["train"], settings.test_split: drawn["test"]}
    mapper.finish(settings.id, splits)
    return hub.data_set(splits)


def _wanted(settings: HubTableSettings, known: list[str]) -> list[str]:
    """Names of the splits to read. Raises DataError for an absent split, or a drawn one whose name is taken."""
    if settings.test_share is not None and settings.test_split in known:
        raise DataError(
            f"data set {settings.name}: {settings.id} has a split {settings.test_split!r}; remove data.test_share, "
            "or give the drawn split another name with data.test_split"
        )
    wanted = splits_in_use(settings) if settings.test_share is None else [settings.train_split]
    for split in wanted:
        if split not in known:
            draw = "; without a split to test on, set `data.test_share: 0.2`" if len(known) == 1 else ""
            problem = f"there is no split {split!r}{did_you_mean(split, known)}"
            raise DataError(
                f"data set {settings.name}: {settings.id}: {problem}; see data.train_split, data.test_split{draw}"
            )
    return wanted

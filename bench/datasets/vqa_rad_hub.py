"""VQA-RAD from the Hub: 1,793 training and 451 test questions (the official split without four doubles), CC0.

The Hub's table has no answer types, so only ``evaluate.closed: yes_no`` can be used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bench.datasets import vqa_rad
from bench.datasets.common import files, hub
from bench.datasets.common import records as _records
from bench.plugins.contracts import Example

if TYPE_CHECKING:
    from PIL.Image import Image


COLUMNS = ("image", "question", "answer")


class VqaRadHubSettings(hub.HubSettings):
    """Table with the columns ``image``, ``question`` and ``answer``."""

    name: Literal["vqa_rad_hub"]
    id: str = "flaviagiammarino/vqa-rad"
    """Id on the Hub, or a local folder in the same layout (parquet files, or ``Dataset.save_to_disk``)."""
    allow_leaky: bool = False
    """Accept a training split that holds rephrased test questions."""


Settings = VqaRadHubSettings


def digest(settings: VqaRadHubSettings) -> str:
    """See ``DataPlugin.digest``; takes the seconds that loading takes."""
    return load(settings).digest()


def load(settings: VqaRadHubSettings) -> TableImages:
    """See ``DataPlugin.load``."""
    return hub.once(settings, lambda: _load(settings))


def _load(settings: VqaRadHubSettings) -> TableImages:
    data = TableImages(settings.id, hub.load_splits(settings))
    if not settings.allow_leaky:
        vqa_rad.refuse_leaky(settings.id, data.split("train"), data.split("test"))
    return data


class TableImages(files.Splits):
    """``OpenedData`` on tables whose rows hold the image files' bytes; equal images have one name."""

    def __init__(self, source: str, found: hub.Tables) -> None:
        super().__init__({})
        tables = {split: hub.columns_of(f"{source} ({split})", table, COLUMNS) for split, table in found.splits.items()}
        self._images = hub.StoredImages(source, tables, "image", self.kept_notes)
        splits = {}
        for split, table in tables.items():
            records = _records.records_of(f"{source} ({split})", table)
            splits[split] = [self._example(split, record) for record in records]
        self._splits = splits
        for note in found.notes:
            self.kept_notes.add(note)

    def _example(self, split: str, record: _records.Record) -> Example:
        return Example(
            question_id=f"{split}-{record.index}",
            image=self._images.name(split, record.index, record.fields.get("image")),
            questions=(record.text("question"),),
            answer=record.text("answer"),
        )

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``."""
        return self._images.open(example.image_name, example.question_id)

    def image_digests(self, names: Sequence[str]) -> list[str]:
        """See ``OpenedData``; the names are digests."""
        return list(names)

    def digest(self) -> str:
        """SHA-256 over all questions, answers and image contents."""
        return hashlib.sha256(files.examples_text(self._splits).encode()).hexdigest()

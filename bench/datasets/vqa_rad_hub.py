"""VQA-RAD from the Hub: 1,793 training and 451 test questions (the official split without four doubles), CC0.

The Hub's table has no answer types, so only ``evaluate.closed: yes_no`` can be used.
"""

from __future__ import annotations

from typing import Literal

from bench.datasets import vqa_rad
from bench.datasets.common.dataset import DataSet
from bench.datasets.common.hub import HubSettings, HubTables, opened_once
from bench.plugins import Example

COLUMNS = ("image", "question", "answer")


class VqaRadHubSettings(HubSettings):
    """Table with the columns ``image``, ``question`` and ``answer``."""

    name: Literal["vqa_rad_hub"]
    id: str = "flaviagiammarino/vqa-rad"
    """Id on the Hub, or a local folder in the same layout (parquet files, or ``Dataset.save_to_disk``)."""
    allow_leaky: bool = False
    """Accept a training split that holds rephrased test questions."""


Settings = VqaRadHubSettings


def digest(settings: VqaRadHubSettings) -> str:
    """SHA-256 over questions, answers and image contents; as slow as loading."""
    return load(settings).digest()


@opened_once
def load(settings: VqaRadHubSettings) -> DataSet:
    """All splits of the table. Raises DataError for missing columns and a leaky training split."""
    hub = HubTables(settings)
    splits = {}
    for split in hub.tables:
        hub.select(split, COLUMNS)
        splits[split] = [
            Example(
                question_id=f"{split}-{row.number}",
                image=hub.image_name(split, "image", row, row.value("image")),
                questions=(row.words("question"),),
                answer=row.words("answer"),
            )
            for row in hub.rows(split)
        ]
    data = hub.data_set(splits)
    if not settings.allow_leaky:
        vqa_rad.refuse_leaky(settings.id, {split: data.split(split) for split in ("train", "test")})
    return data

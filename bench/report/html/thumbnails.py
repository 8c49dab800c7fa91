"""Small images of the examples shown, as data URIs, from the data set that the records were made with."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from bench import files, registry
from bench.errors import BenchError, OutputError
from bench.format import counted, one_line, visible
from bench.plugins.contracts import Example, OpenedData
from bench.report import background
from bench.report.html.questions import Question
from bench.spec.cell import Cell

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 208
"""Longest side, pixels; smaller images stay as they are."""
MAX_BYTES = 360_000
"""Maximum length of all data URIs together."""
QUALITY = 62
"""Of WebP, for images that had to be made smaller; others are stored without loss."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Environment in which data of the Hub are read only if they were downloaded before."""
Wanted = Sequence[tuple[int, str | None, Example]]
"""Index of a question, digest of its data set, and the example."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnails:
    images: Sequence[str] = ()
    """Data URIs."""
    of: Mapping[int, int] = field(default_factory=dict)
    """Index of a question -> index of its image."""
    note: str = ""
    """Reason why images are missing; empty if none are."""


def start(questions: Sequence[Question], cells: Mapping[str, Cell]) -> Callable[[], Thumbnails]:
    """Start making the images of the first questions, up to ``MAX_BYTES``; the returned function waits for them.

    ``cells``, by id, have the settings of the data sets.
    """
    pictured = [(place, q) for place, q in enumerate(questions) if q.image is not None]
    if not pictured:
        return Thumbnails
    wanted = [
        (place, q.record.data_digest, Example(question_id=q.question_id, image=q.image, answer=q.answer))
        for place, q in pictured
    ]
    sources = {q.record.data_digest: cells[q.record.cell_id].data.model_dump(mode="json") for _, q in pictured}
    made = background.start("making the images", make, wanted, sources)

    def thumbnails() -> Thumbnails:
        try:
            return made()
        except (OutputError, RuntimeError) as problem:
            return Thumbnails(note=f"No images are shown: {visible(_first_line(problem), 300)}.")

    return cache(thumbnails)


def make(wanted: Wanted, sources: Mapping[str | None, Any]) -> Thumbnails:
    """Images of the examples; ``sources``: settings of data sets by their digests. Downloads nothing."""
    os.environ |= OFFLINE
    opened, note, problem = {}, "", ""
    for digest, settings in sources.items():
        opened[digest], why = _open(settings, digest)
        problem = why or problem
    images: dict[tuple[str | None, str | None], int] = {}
    uris: list[str] = []
    of: dict[int, int] = {}
    for place, digest, example in wanted:
        source, key = opened[digest], (digest, example.image)
        if source is None:
            continue
        if key not in images:
            try:
                uri = _uri(source.image(example))
            except (BenchError, OSError, LookupError) as unreadable:
                note = note or f"An image cannot be shown: {_first_line(unreadable)}."
                continue
            if sum(map(len, uris)) + len(uri) > MAX_BYTES:
                note = note or f"To keep this file small, only the first {counted(len(uris), 'image')} are shown."
                break
            images[key] = len(uris)
            uris.append(uri)
        of[place] = images[key]
    return Thumbnails(images=uris, of=of, note=note or problem)


def _open(dumped: Any, digest: str | None) -> tuple[OpenedData | None, str]:
    """The data set, if it is that of the records, or the reason why not."""
    try:
        plugin = registry.load("datasets", dumped["name"])
        settings = plugin.Settings.model_validate(dumped)
        with files.limited_reading(patient=True):
            here = plugin.digest(settings)
        if here != digest:
            name = one_line(dumped["name"])
            return None, f"No images are shown: the records were made with other data than {name} has here."
        opened: OpenedData = plugin.load(settings)
        for split in settings.test_split.split("+"):
            opened.split(split.strip())
    except (BenchError, OSError, ImportError) as problem:
        return None, f"No images are shown: {_first_line(problem)}."
    return opened, ""


def _uri(image: Image) -> str:
    small = max(image.size) <= SIDE
    if not small:
        image = image.convert("RGB")
        image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=small, quality=80 if small else QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _first_line(problem: BaseException) -> str:
    return one_line(str(problem).partition("\n")[0]).rstrip(".")

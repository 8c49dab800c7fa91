"""Small images of the examples shown, as data URIs, from the data set that the records were made with."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import registry
from bench.cell import Cell
from bench.errors import BenchError
from bench.protocols import Example, OpenedData
from bench.report.html.questions import Question
from bench.report.text import counted, plain
from bench.settings import DataSettings

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 208
"""Longest side, pixels; smaller images stay as they are."""
MOST_BYTES = 360_000
"""Of all data URIs together."""
QUALITY = 62
"""Of WebP, for images that had to be made smaller; others are stored without loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnails:
    images: Sequence[str]
    """Data URIs."""
    of: Mapping[int, int]
    """Place of a question -> place of its image."""
    note: str
    """Why some or all are not shown; empty if all are."""


def make(questions: Sequence[Question], cells: Mapping[str, Cell]) -> Thumbnails:
    """Of the first questions, up to ``MOST_BYTES``; ``cells`` are by id, and say where the data are."""
    wanted = [place for place, question in enumerate(questions) if question.image is not None]
    if not wanted:
        return Thumbnails(images=(), of={}, note="")
    images: dict[tuple[str | None, str | None], int] = {}
    uris: list[str] = []
    of: dict[int, int] = {}
    note, used, sources = "", 0, _Sources(cells)
    for place in wanted:
        question = questions[place]
        key = (question.record.data_digest, question.image)
        if key not in images:
            source = sources.of(question)
            if source is None:
                note = note or sources.problem
                continue
            try:
                uri = _uri(source.image(_example(question)))
            except (BenchError, OSError, LookupError) as problem:
                note = note or f"An image cannot be shown: {_first_line(problem)}."
                continue
            if used + len(uri) > MOST_BYTES:
                note = (
                    note
                    or f"Images are shown of the first {counted(len(uris), 'example image')}, to keep this file small."
                )
                break
            used += len(uri)
            images[key] = len(uris)
            uris.append(uri)
        of[place] = images[key]
    return Thumbnails(images=uris, of=of, note=note)


class _Sources:
    """The data sets, opened once each."""

    def __init__(self, cells: Mapping[str, Cell]) -> None:
        self._cells = cells
        self._opened: dict[str | None, OpenedData | None] = {}
        self.problem = ""

    def of(self, question: Question) -> OpenedData | None:
        digest = question.record.data_digest
        if digest not in self._opened:
            self._opened[digest] = self._open(self._cells[question.record.cell_id].data, digest)
        return self._opened[digest]

    def _open(self, settings: DataSettings, digest: str | None) -> OpenedData | None:
        plugin = registry.load("datasets", settings.name)
        try:
            if plugin.digest(settings) == digest:
                opened: OpenedData = plugin.load(settings)
                for split in settings.test_split.split("+"):
                    opened.split(split)
                return opened
            name = plain(settings.name)
            self.problem = f"No images are shown: the records were made with other data than {name} has here."
        except (BenchError, OSError) as problem:
            self.problem = f"No images are shown: {_first_line(problem)}."
        return None


def _example(question: Question) -> Example:
    return Example(question_id=question.question_id, image=question.image, answer=question.answer)


def _uri(image: Image) -> str:
    small = max(image.size) <= SIDE
    if not small:
        image = image.convert("RGB")
        image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=small, quality=80 if small else QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _first_line(problem: BaseException) -> str:
    return plain(str(problem).partition("\n")[0]).rstrip(".")

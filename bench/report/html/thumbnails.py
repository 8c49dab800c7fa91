"""Small images of the examples shown, as data URIs, from the data set that the records were made with.

Made in a process of its own, which reads JSON on stdin and writes JSON to stdout: nothing is downloaded there, whatever
library a data set is read with, and none of these libraries is imported here.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench import files, registry
from bench.environment import die_with_parent
from bench.errors import BenchError
from bench.format import counted, one_line, visible
from bench.plugins.contracts import Example, OpenedData
from bench.report import processes
from bench.report.html.questions import Question
from bench.spec.cell import Cell

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 208
"""Longest side, pixels; smaller images stay as they are."""
MOST_BYTES = 360_000
"""Of all data URIs together."""
QUALITY = 62
"""Of WebP, for images that had to be made smaller; others are stored without loss."""
LIMIT_S = 120.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""What the Hub has is shown if it was downloaded before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnails:
    images: Sequence[str] = ()
    """Data URIs."""
    of: Mapping[int, int] = field(default_factory=dict)
    """Place of a question -> place of its image."""
    note: str = ""
    """Why some or all are not shown; empty if all are."""


class Making:
    """Thumbnails of the first questions, up to ``MOST_BYTES``, on the way; ``cells`` say where the data are."""

    def __init__(self, questions: Sequence[Question], cells: Mapping[str, Cell]) -> None:
        wanted = [_wish(place, question) for place, question in enumerate(questions) if question.image is not None]
        sources = {q.record.data_digest: _source(cells[q.record.cell_id]) for q in questions if q.image is not None}
        self._process = _start({"wanted": wanted, "sources": list(sources.items())}) if wanted else None

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """When they are done."""
        if self._process is None:
            return Thumbnails()
        try:
            out, err = self._process.communicate(timeout=LIMIT_S)
            found = json.loads(out)
        except (subprocess.TimeoutExpired, ValueError) as problem:
            self._process.kill()
            _, rest = self._process.communicate()
            said = (err if isinstance(problem, ValueError) else rest).decode(errors="replace").strip()
            why = said.rpartition("\n")[2] or type(problem).__name__
            return Thumbnails(note=f"No images are shown: {visible(why, 300)}.")
        return Thumbnails(images=found["images"], of=dict(found["of"]), note=found["note"])


def _wish(place: int, question: Question) -> list[Any]:
    return [place, question.record.data_digest, question.question_id, question.image, question.answer]


def _source(cell: Cell) -> Any:
    return cell.data.model_dump(mode="json")


def _start(told: Any) -> subprocess.Popen[bytes]:
    process = processes.start("-m", "bench.report.html.thumbnails", environ=OFFLINE)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # told at once, so that it works while we go on
        process.stdin.write(json.dumps(told).encode())
    process.stdin = None
    return process


# --- in the process of its own ---------------------------------------------------------------------------------


def make(wanted: Sequence[Sequence[Any]], sources: Mapping[str | None, Any]) -> Thumbnails:
    """Of the wishes in their order; ``sources`` are settings of data sets by the digests of the records."""
    images: dict[tuple[str | None, str], int] = {}
    uris: list[str] = []
    of: dict[int, int] = {}
    used, opened, note = 0, _Sources(sources), ""
    for place, digest, question_id, image, answer in wanted:
        if (digest, image) not in images:
            source = opened.of(digest)
            if source is None:
                continue
            try:
                uri = _uri(source.image(Example(question_id=question_id, image=image, answer=answer)))
            except (BenchError, OSError, LookupError) as problem:
                note = note or f"An image cannot be shown: {_first_line(problem)}."
                continue
            if used + len(uri) > MOST_BYTES:
                note = note or f"To keep this file small, only the first {counted(len(uris), 'image')} are shown."
                break
            used += len(uri)
            images[digest, image] = len(uris)
            uris.append(uri)
        of[place] = images[digest, image]
    return Thumbnails(images=uris, of=of, note=note or opened.problem)


class _Sources:
    """The data sets, opened once each."""

    def __init__(self, settings: Mapping[str | None, Any]) -> None:
        self._opened = {digest: self._open(one, digest) for digest, one in settings.items()}

    problem = ""

    def of(self, digest: str | None) -> OpenedData | None:
        return self._opened[digest]

    def _open(self, told: Any, digest: str | None) -> OpenedData | None:
        try:
            plugin = registry.load("datasets", told["name"])
            settings = plugin.Settings.model_validate(told)
            with files.limited_reading(patient=True):
                here = plugin.digest(settings)
            if here != digest:
                name = one_line(told["name"])
                self.problem = f"No images are shown: the records were made with other data than {name} has here."
                return None
            opened: OpenedData = plugin.load(settings)
            for split in _splits(settings.test_split):
                opened.split(split)
        except (BenchError, OSError, ImportError) as problem:
            self.problem = f"No images are shown: {_first_line(problem)}."
            return None
        return opened


def _splits(named: str) -> Iterator[str]:
    return (split.strip() for split in named.split("+"))


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


def _main() -> None:
    die_with_parent(os.environ.get(processes.PARENT))
    told, out = json.load(sys.stdin), sys.stdout
    sys.stdout = sys.stderr  # libraries print
    found = asdict(make(told["wanted"], dict(told["sources"])))
    json.dump(found | {"of": list(found["of"].items())}, out)


if __name__ == "__main__":
    _main()

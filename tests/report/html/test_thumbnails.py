"""Images: of the right data, small, never downloaded, and never a reason to have no page."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from bench.plugins import Example
from bench.report.html import thumbnails
from bench.report.html.questions import Question, read
from bench.spec.cell import Cell
from tests import factories
from tests.report.html.conftest import Report


def questions(report: Report) -> list[Question]:
    return read([record for group in report.groups for record in group.records], report.folder).shown


def by_id(report: Report) -> dict[str, Cell]:
    return {cell.cell_id: cell for cell in report.cells}


def test_examples_of_one_image_share_it(report: Report) -> None:
    made = thumbnails.start(questions(report), by_id(report))()
    assert dict(made.of) == {place: place // 3 for place in range(60)}
    content = base64.b64decode(made.images[0].partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.size) == ("WEBP", (64, 64))


def test_together_they_stay_small(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = questions(report)
    digest = shown[0].record.data_digest
    wanted = [
        (place, digest, Example(question_id=q.question_id, image=q.image, answer=q.answer))
        for place, q in enumerate(shown)
    ]
    sources = {digest: report.cells[0].data.model_dump(mode="json")}
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 1000)
    few = thumbnails.make(wanted, sources)
    assert 0 < sum(map(len, few.images)) <= 1000
    assert few.note == f"To keep this file small, only the first {len(few.images)} images are shown."


def test_large_images_are_made_smaller() -> None:
    uri = thumbnails._uri(Image.effect_noise((900, 600), 80))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert image.size == (208, 139)


def test_nothing_is_downloaded(report: Report) -> None:
    pytest.importorskip("datasets", reason="the [hub] extra is not installed")
    settings = factories.plugin("datasets", "vqa_rad_hub").Settings(name="vqa_rad_hub", id="nobody/has-this-data-set")
    cells = {cell_id: cell.model_copy(update={"data": settings}) for cell_id, cell in by_id(report).items()}
    made = thumbnails.start(questions(report), cells)()
    assert made.images == []
    assert "nobody/has-this-data-set" in made.note
    assert "offline" in made.note.lower() or "cannot be loaded" in made.note


def fail(*_: object) -> None:
    raise RuntimeError("no library")


def test_a_process_that_fails_leaves_a_note(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "make", fail)
    made = thumbnails.start(questions(report), by_id(report))
    assert made().note == "No images are shown: making the images failed: no library."

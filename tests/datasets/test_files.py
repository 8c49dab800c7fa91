"""Hostile and broken files: each is refused with an error that names it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.datasets.common import dataset, images, rows
from bench.errors import DataError
from bench.plugins.contracts import Example
from tests.datasets.conftest import picture


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"qid": 1},\n {"qid": }]', r"a\.json:2:10: not valid JSON"),
        (b'{"qid": 1}\n{"qid": 2', r"a\.json:2:\d+: not valid JSON"),
        (b"\xff\xfe\x00", r"a\.json: cannot be read as UTF-8"),
        (b"[" * 100_000, r"a\.json:1: not valid JSON"),
        (b"[" + b"9" * 5_000 + b"]", r"a\.json:1: not valid JSON"),
        (b"[]", r"a\.json: holds no records"),
        (b"  \n", r"a\.json: holds no records"),
    ],
)
def test_broken_json_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        rows.read_json(path)


def test_json_array_and_json_lines_read_alike(tmp_path: Path) -> None:
    array, lines = tmp_path / "a.json", tmp_path / "b.jsol"
    array.write_bytes(b'\xef\xbb\xbf[{"q": "a\\u2028b"}, {"q": "c"}]')
    lines.write_text('{"q": "a\u2028b"}\n\n{"q": "c"}\n', encoding="utf-8")
    assert rows.read_json(array) == rows.read_json(lines) == [{"q": "a\u2028b"}, {"q": "c"}]


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "a\0.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="leads out of the image folder"):
        images.image_path(tmp_path / "images", name)


def test_links_out_of_the_folder_are_refused_but_the_folder_may_be_a_link(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.jpg")
    inside = picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").symlink_to(secret)
    (tmp_path / "images" / "c.jpg").symlink_to(inside)
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match=r"b\.jpg is a link that leads out"):
        images.image_path(tmp_path / "images", "b.jpg")
    for folder in ("images", "linked"):
        assert images.decode_image(images.image_path(tmp_path / folder, "c.jpg"), "1").size == (12, 8)


def test_the_text_of_examples_outlives_new_fields() -> None:
    """Digests of the Hub's data sets are taken of it: as the first versions wrote it, unless a later field is set."""
    example = Example(question_id="1", questions=("a", "b"), answer="c")
    first = "Example(question_id='1', image=None, questions=('a', 'b'), answer='c', answer_type=None)"
    encoded = dataset.encode_examples({"train": [example], "test": []}).decode()
    assert encoded == f"[('test', []), ('train', [{first}])]"
    paired = dataclasses.replace(example, text_pair="d")
    assert dataset.encode_examples({"test": [paired]}).decode() == f"[('test', [{first[:-1]}, text_pair='d')])]"

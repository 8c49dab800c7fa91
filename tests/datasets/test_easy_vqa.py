"""The embedded data set, as it is installed."""

from __future__ import annotations

import pytest

from bench.datasets import easy_vqa
from bench.datasets.common import dataset
from bench.errors import DataError

SETTINGS = easy_vqa.Settings(name="easy_vqa")


def test_counts_answers_and_images() -> None:
    data = easy_vqa.load(SETTINGS)
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (38_575, 9_673)
    assert len({e.answer for e in train}) == 13
    assert {e.answer for e in test if e.answer_type == "closed"} == {"yes", "no"}
    assert not {"yes", "no"} & {e.answer for e in test if e.answer_type == "open"}
    assert len({e.question_id for e in (*train, *test)}) == len(train) + len(test)
    image = data.image(test[0])
    assert (image.mode, image.size) == ("RGB", (64, 64))
    assert {"teal", "what color is the shape?"} <= set(data.texts())


def test_digest_is_stable() -> None:
    assert easy_vqa.digest(SETTINGS) == easy_vqa.digest(SETTINGS)


def test_absent_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match="pip install"):
        easy_vqa.digest(SETTINGS)

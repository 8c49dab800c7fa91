"""What the estimate asks a model built on meta: its inputs' shapes, and how long texts become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.errors import WeightsError
from bench.models import miss
from bench.models.miss import weights as files
from bench.models.miss.model import MissModel
from bench.models.miss.tokens import SPECIAL
from bench.plugins.contracts import InputLengths
from tests.models.conftest import ANSWERS, QUESTIONS, TINY


def on_meta(texts: Sequence[str] = (*QUESTIONS, *ANSWERS), **changes: Any) -> MissModel:
    return miss.build(miss.Settings.model_validate(TINY | changes), texts=texts, device="meta")


@pytest.mark.parametrize("with_answers", [True, False])
@pytest.mark.parametrize("cut", [40, 5])
def test_inputs_on_meta_are_those_of_collate(images: Sequence[Image.Image], with_answers: bool, cut: int) -> None:
    limits: dict[str, Any] = {"question_max_tokens": cut, "answer_max_tokens": cut}
    real = miss.build(miss.Settings.model_validate(TINY | limits), texts=[*QUESTIONS, *ANSWERS], device="cpu")
    batch = real.collate(images, QUESTIONS, ANSWERS if with_answers else [])
    planned = on_meta(**limits)
    inputs = planned.meta_inputs(len(QUESTIONS), planned.lengths(QUESTIONS, ANSWERS), with_answers=with_answers)
    assert {n: (t.shape, t.dtype) for n, t in inputs.items()} == {n: (t.shape, t.dtype) for n, t in batch.items()}
    assert {t.device.type for t in inputs.values()} == {"meta"}


def test_the_longest_lengths_are_those_of_endless_texts() -> None:
    model = on_meta()
    assert model.max_lengths() == model.lengths(["lung " * 99], ["lung " * 99])
    assert model.max_lengths() == InputLengths(question_tokens=35, answer_tokens=40)


def test_the_vocabulary_of_random_weights_is_made_of_the_texts() -> None:
    assert on_meta().has_vocabulary
    assert not on_meta(texts=[], text={"hidden_size": 32, "vocab_size": 50}).has_vocabulary


def test_an_unknown_vocabulary_of_unknown_size_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"set model\.text\.vocab_size"):
        on_meta(texts=[])


@pytest.mark.parametrize(
    "weights",
    [
        {"kind": "hub", "id": "nobody/not-in-any-cache"},
        {"kind": "folder", "path": "nowhere"},
        {"kind": "checkpoint", "path": "nowhere.pth"},
    ],
)
def test_without_the_weights_berts_vocabulary_counts_where_the_model_has_just_its_size(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{w}\n" for w in ("[PAD]", "[UNK]", "[SEP]", "lu", "##ng")))
    monkeypatch.setattr(files, "packaged", lambda *_names: tmp_path / "model.safetensors")
    rows: dict[str, Any] = {"text": {"hidden_size": 32, "vocab_size": 5 + 2}}
    fitting = on_meta(weights=weights, **rows)
    assert fitting.has_vocabulary
    assert fitting.lengths(["lung"], ["lu"]) == InputLengths(question_tokens=4, answer_tokens=3)
    if weights["kind"] != "checkpoint":
        assert not on_meta(weights=weights, texts=["lung"], text={"hidden_size": 32, "vocab_size": 50}).has_vocabulary


def test_facts_name_what_the_texts_decide() -> None:
    assert on_meta(texts=["a b"]).facts()["vocab_size"] == len(SPECIAL) + 2
    assert on_meta().facts()["image_size"] == 32

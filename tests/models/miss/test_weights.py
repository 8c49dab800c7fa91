"""MISS weights: read from every kind of source, strictly, and never by unpickling anything but tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import WeightsError
from bench.models import miss
from bench.models.miss import weights as miss_weights
from bench.models.miss.model import MissModel
from bench.models.miss.tokens import SPECIAL, MissTokens, read_words
from bench.plugins.contracts import InputLengths
from tests.models.miss.conftest import original, with_weights
from tests.models.vqa import ANSWERS, MISS, QUESTIONS, tiny_miss

Write = Callable[[dict[str, Any]], miss.Settings]


def build(settings: miss.Settings) -> MissModel:
    return miss.build(settings, texts=["other words"], device="cpu")


def same(a: MissModel, b: MissModel) -> bool:
    one, two = a.module.state_dict(), b.module.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def model() -> MissModel:
    return tiny_miss()


@pytest.fixture
def folder(model: MissModel, tmp_path: Path) -> Path:
    miss.save(model, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def checkpoint(folder: Path) -> Write:
    """Write a ``.pth`` beside the vocabulary; returns the settings that read it."""

    def write(content: dict[str, Any]) -> miss.Settings:
        torch.save(content, folder / "miss.pth")
        return with_weights(kind="checkpoint", path=folder / "miss.pth")

    return write


def test_a_saved_model_comes_back_bit_for_bit(model: MissModel, folder: Path, tmp_path: Path) -> None:
    model.module.save_pretrained(tmp_path / "library")
    model.tokens.save(tmp_path / "library")
    for path in (folder, tmp_path / "library"):
        again = build(with_weights(kind="folder", path=path))
        assert same(again, model)
        assert again.tokens.words == model.tokens.words
        decoder = again.module.text_decoder
        assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_released_checkpoint_is_read(model: MissModel, checkpoint: Write, wrapper: str | None) -> None:
    state = original(model)
    assert "visual_encoder.blocks.1.attn.proj.weight" in state
    extras = {
        "visual_encoder_m.cls_token": torch.zeros(1),
        "text_encoder_m.embeddings.word_embeddings.weight": torch.zeros(1),
        "image_queue": torch.zeros(2),
        "temp": torch.zeros(()),
        "itm_head.weight": torch.zeros(2),
        "text_decoder.bert.embeddings.position_ids": torch.arange(3),
    }
    content = {f"module.{name}": tensor for name, tensor in (state | extras).items()}
    settings = checkpoint(content if wrapper is None else {wrapper: content, "epoch": 3, "config": {"lr": 1e-5}})
    assert same(build(settings), model)


def test_safetensors_under_either_names_are_read(model: MissModel, folder: Path) -> None:
    for name, state in (("ours", model.module.state_dict()), ("theirs", original(model))):
        path = folder / f"{name}.safetensors"
        save_file({key: tensor.clone() for key, tensor in state.items()}, path)
        assert same(build(with_weights(kind="checkpoint", path=path)), model)


def test_tensors_that_do_not_fit_are_named(model: MissModel, checkpoint: Write) -> None:
    state = original(model)
    state |= {f"strange.{i:02}": torch.zeros(1) for i in range(12)}
    del state["visual_encoder.norm.bias"]
    state["text_encoder.embeddings.LayerNorm.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        build(checkpoint({"model": state}))
    for words in (
        "1 missing: vision_model.post_layernorm.bias",
        "12 unexpected: strange.00, ",
        "strange.09, and 2 more",
        "text_encoder.embeddings.LayerNorm.bias (3,) instead of (32,)",
    ):
        assert words in str(caught.value)


def test_renamed_attention_and_tied_tensors_that_differ_are_refused(model: MissModel, checkpoint: Write) -> None:
    state = {n.replace("self.query", "self.q_proj"): t for n, t in model.module.state_dict().items()}
    with pytest.raises(WeightsError, match=r"missing: text_decoder\.bert\.encoder\.layer\.0\.attention"):
        build(checkpoint(state))
    state = original(model)
    state["text_decoder.cls.predictions.decoder.weight"] += 1
    with pytest.raises(WeightsError, match="differ in the file"):
        build(checkpoint(state))


def test_positions_are_interpolated_to_another_image_size(model: MissModel, folder: Path) -> None:
    settings = miss.Settings.model_validate(
        MISS | {"image": {"size": 64}, "weights": {"kind": "folder", "path": folder}}
    )
    old = model.module.vision_model.embeddings.position_embedding
    new = build(settings).module.vision_model.embeddings.position_embedding
    assert new.shape == (1, 65, 32)
    assert torch.equal(new[:, 0], old[:, 0])
    assert miss_weights.interpolate_positions(old, 17) is old
    ramp = torch.arange(16.0).reshape(1, 16, 1).expand(1, 16, 32)
    table = miss_weights.interpolate_positions(torch.cat([old[:, :1], ramp], 1), 65)
    grid = table[0, 1:, 0].reshape(8, 8)
    assert (grid.diff(dim=0) > 0).all()
    assert (grid.diff(dim=1) > 0).all(), "rows and columns keep their order"


def test_a_config_that_disagrees_with_the_spec_is_an_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 8
    for content, words in ((config, "num_attention_heads is 8 there, 4 in the spec"), ([], "no configuration of BLIP")):
        (folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=words):
            build(with_weights(kind="folder", path=folder))


@pytest.mark.parametrize(
    "weights",
    [
        {"kind": "folder", "path": "nowhere"},
        {"kind": "checkpoint", "path": "nowhere.pth"},
        {"kind": "bundled", "name": "nothing"},
    ],
)
def test_missing_weights_are_an_error_that_names_the_place(weights: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match=r"noth|nowhere"):
        miss.weights_digest(with_weights(**weights))
    miss.build(with_weights(**weights), texts=["a"], device="meta")  # counting needs no weights


def test_vocabulary_of_a_fast_tokenizer_is_read(tmp_path: Path) -> None:
    words = {"[PAD]": 0, "[UNK]": 1, "[SEP]": 3, "lung": 2}
    content: dict[str, Any] = {"type": "WordPiece", "vocab": words}
    added = [{"id": 4, "content": "[DEC]"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": content, "added_tokens": added}))
    assert read_words(tmp_path) == ["[PAD]", "[UNK]", "lung", "[SEP]", "[DEC]"]
    tokens = MissTokens(read_words(tmp_path) or [])
    assert (tokens.dec, tokens.enc) == (4, 5), "[ENC] is appended"
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": content | {"type": "BPE"}}))
    with pytest.raises(WeightsError, match="BPE"):
        read_words(tmp_path)


def on_meta(texts: Sequence[str] = (*QUESTIONS, *ANSWERS), **changes: Any) -> MissModel:
    return miss.build(miss.Settings.model_validate(MISS | changes), texts=texts, device="meta")


def test_the_vocabulary_of_random_weights_is_made_of_the_texts() -> None:
    model = on_meta(texts=["a b"])
    assert model.has_vocabulary
    assert model.facts()["vocab_size"] == len(SPECIAL) + 2
    assert model.max_lengths() == model.lengths(["lung " * 99], ["lung " * 99])
    assert not on_meta(texts=[], text={"hidden_size": 32, "vocab_size": 50}).has_vocabulary
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
    monkeypatch.setattr(miss_weights, "packaged", lambda *_names: tmp_path / "model.safetensors")
    rows: dict[str, Any] = {"text": {"hidden_size": 32, "vocab_size": 5 + 2}}
    fitting = on_meta(weights=weights, **rows)
    assert fitting.has_vocabulary
    assert fitting.lengths(["lung"], ["lu"]) == InputLengths(question_tokens=4, answer_tokens=3)
    if weights["kind"] != "checkpoint":
        assert not on_meta(weights=weights, texts=["lung"], text={"hidden_size": 32, "vocab_size": 50}).has_vocabulary

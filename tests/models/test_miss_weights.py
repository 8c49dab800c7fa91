"""MISS weights: read from every kind of source, strictly, and never by unpickling anything but tensors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import WeightsError
from bench.models import miss
from bench.models.miss import weights as _miss_weights
from bench.models.miss.model import MissModel
from bench.models.miss.tokens import Tokens, read_words
from bench.plugins.contracts import GenerateOptions
from bench.training.adapt import adapt
from tests.models.conftest import TINY

State = dict[str, torch.Tensor]
TO_ORIGINAL = [
    ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
    ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
    ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
    ("vision_model.post_layernorm", "visual_encoder.norm"),
    ("vision_model.encoder.layers", "visual_encoder.blocks"),
    ("self_attn.qkv", "attn.qkv"),
    ("self_attn.projection", "attn.proj"),
    ("layer_norm", "norm"),
]


def with_weights(**weights: Any) -> miss.Settings:
    return miss.Settings.model_validate(TINY | {"weights": weights})


def build(settings: miss.Settings) -> MissModel:
    return miss.build(settings, texts=["other words"], device="cpu")


def same(a: MissModel, b: MissModel) -> bool:
    one, two = a.module.state_dict(), b.module.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def original(model: MissModel) -> State:
    """The model's tensors under the names of the released MISS code."""
    state: State = {}
    for name, tensor in model.module.state_dict().items():
        renamed = name
        for ours, theirs in TO_ORIGINAL if name.startswith("vision_model") else []:
            renamed = renamed.replace(ours, theirs)
        state[renamed] = tensor.clone()
    return state


@pytest.fixture
def folder(model: MissModel, tmp_path: Path) -> Path:
    miss.save(model, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def checkpoint(folder: Path) -> Callable[[dict[str, Any]], miss.Settings]:
    """Write a ``.pth`` beside the vocabulary; returns the settings that read it."""

    def write(content: dict[str, Any]) -> miss.Settings:
        torch.save(content, folder / "miss.pth")
        return with_weights(kind="checkpoint", path=folder / "miss.pth")

    return write


def test_a_saved_model_comes_back_bit_for_bit(model: MissModel, folder: Path, batch: State) -> None:
    again = build(with_weights(kind="folder", path=folder))
    again.module.eval()
    assert same(again, model)
    assert again.tokens.words == model.tokens.words
    options = GenerateOptions(num_beams=3, max_new_tokens=5)
    assert again.generate(batch, options) == model.generate(batch, options)
    decoder = again.module.text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_a_folder_written_by_the_library_is_read(model: MissModel, tmp_path: Path) -> None:
    model.module.save_pretrained(tmp_path)
    model.tokens.save(tmp_path)
    assert same(build(with_weights(kind="folder", path=tmp_path)), model)


def test_a_model_with_adapters_is_not_saved_as_a_whole(model: MissModel, tmp_path: Path) -> None:
    from bench.methods import lora

    adapt(model, miss.PARTS, {"vit": "F", "jtm": "F", "dec": "LoRA"}, {"LoRA": lora.Settings(type="lora")})
    with pytest.raises(WeightsError, match="with adapters"):
        miss.save(model, tmp_path)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_released_checkpoint_is_read(
    model: MissModel, checkpoint: Callable[[dict[str, Any]], miss.Settings], wrapper: str | None
) -> None:
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


def test_tensors_that_do_not_fit_are_named(
    model: MissModel, checkpoint: Callable[[dict[str, Any]], miss.Settings]
) -> None:
    state = original(model)
    for i in range(12):
        state[f"strange.{i:02}"] = torch.zeros(1)
    del state["visual_encoder.norm.bias"]
    state["text_encoder.embeddings.LayerNorm.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        build(checkpoint({"model": state}))
    text = str(caught.value)
    assert "1 missing: vision_model.post_layernorm.bias" in text
    assert "12 unexpected: strange.00, " in text
    assert "strange.09, and 2 more" in text
    assert "text_encoder.embeddings.LayerNorm.bias (3,) instead of (32,)" in text


def test_renamed_attention_is_not_left_random(
    model: MissModel, checkpoint: Callable[[dict[str, Any]], miss.Settings]
) -> None:
    state = {n.replace("self.query", "self.q_proj"): t for n, t in model.module.state_dict().items()}
    with pytest.raises(WeightsError, match=r"missing: text_decoder\.bert\.encoder\.layer\.0\.attention"):
        build(checkpoint(state))


def test_tied_tensors_that_differ_are_refused(
    model: MissModel, checkpoint: Callable[[dict[str, Any]], miss.Settings]
) -> None:
    state = original(model)
    state["text_decoder.cls.predictions.decoder.weight"] += 1
    with pytest.raises(WeightsError, match="differ in the file"):
        build(checkpoint(state))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_not_executed(folder: Path, tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "config": Evil(tmp_path / "owned")}, folder / "evil.pth")
    with pytest.raises(WeightsError, match="cannot be loaded safely"):
        build(with_weights(kind="checkpoint", path=folder / "evil.pth"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_broken_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match=re.escape(name)):
        build(with_weights(kind="checkpoint", path=folder / name))


def test_positions_are_interpolated_to_another_image_size(model: MissModel, folder: Path) -> None:
    settings = miss.Settings.model_validate(
        TINY | {"image": {"size": 64}, "weights": {"kind": "folder", "path": folder}}
    )
    old = model.module.vision_model.embeddings.position_embedding
    new = build(settings).module.vision_model.embeddings.position_embedding
    assert new.shape == (1, 65, 32)
    assert torch.equal(new[:, 0], old[:, 0])
    assert _miss_weights.interpolate_positions(old, 17) is old
    ramp = torch.arange(16.0).reshape(1, 16, 1).expand(1, 16, 32)
    table = _miss_weights.interpolate_positions(torch.cat([old[:, :1], ramp], 1), 65)
    grid = table[0, 1:, 0].reshape(8, 8)
    assert (grid.diff(dim=0) > 0).all()
    assert (grid.diff(dim=1) > 0).all(), "rows and columns keep their order"


def test_a_config_that_disagrees_with_the_spec_is_an_error(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_attention_heads"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="num_attention_heads is 8 there, 4 in the spec"):
        build(with_weights(kind="folder", path=folder))


def test_digest_follows_the_contents(folder: Path) -> None:
    settings = with_weights(kind="folder", path=folder)
    before = miss.weights_digest(settings)
    assert before == miss.weights_digest(settings)
    with (folder / "vocab.txt").open("a") as stream:
        stream.write("more\n")
    assert miss.weights_digest(settings) != before
    assert miss.weights_digest(miss.Settings.model_validate(TINY)) is None


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


def test_hub_weights_come_from_the_cache_or_not_at_all(
    model: MissModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    settings = with_weights(kind="hub", id="some/miss")
    with pytest.raises(WeightsError, match="cannot get some/miss"):
        miss.weights_digest(settings)
    repository = tmp_path / "cache" / "models--some--miss"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("a" * 40))
    assert same(build(settings), model)


def test_vocabulary_of_a_fast_tokenizer_is_read(tmp_path: Path) -> None:
    words = {"[PAD]": 0, "[UNK]": 1, "[SEP]": 3, "lung": 2}
    added = [{"id": 4, "content": "[DEC]"}]
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "WordPiece", "vocab": words}, "added_tokens": added})
    )
    assert read_words(tmp_path) == ["[PAD]", "[UNK]", "lung", "[SEP]", "[DEC]"]
    tokens = Tokens(read_words(tmp_path) or [])
    assert (tokens.dec, tokens.enc) == (4, 5), "[ENC] is appended"
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": words}}))
    with pytest.raises(WeightsError, match="BPE"):
        read_words(tmp_path)

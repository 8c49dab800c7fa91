"""Settings of models that cannot be are refused in the spec, with the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bench import registry
from tests.contracts.model_cases import MISS, OFA

TIMM, HF = {"family": "timm", "architecture": "resnet18"}, {"family": "hf"}


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (MISS, {"text": {"hidden_size": 64}}, "must be equal"),
        (MISS, {"image": {"size": 30}}, "not a multiple of patch_size"),
        (MISS, {"vision": {"hidden_size": 32, "num_attention_heads": 5}}, "multiple of vision.num_attention_heads"),
        (MISS, {"weights": {"kind": "dinov2_minilm"}}, "need preset small"),
        (OFA, {"image_size": 50}, "not a multiple of 16"),
        (OFA, {"image_size": 160}, "image_buckets allows 8"),
        (OFA, {"network": {"hidden_size": 30}}, "multiple of network.num_attention_heads"),
        (OFA, {"question_max_tokens": 150}, "max_positions allows 160"),
        (OFA, {"constrain_loss": True}, "constrain_loss needs the known answers"),
        (TIMM, {"arguments": {"num_classes": 3}}, "the data set says how many classes"),
        (TIMM, {"arguments": {"pretrained": True}}, "set model.weights"),
        (TIMM, {"arguments": {"img_size": 32}, "image": {"size": 48}}, "set one of them"),
        (TIMM, {"parts": {}}, "at least 1"),
        (TIMM, {"architecture": ""}, "at least 1"),
        (HF, {}, "exactly one of id, path and config, not none"),
        (HF, {"id": "a/b", "path": "c"}, "not id and path"),
        (HF, {"path": "c", "revision": "v"}, "revision is of id"),
        (HF, {"config": {}}, "model_type"),
        (HF, {"config": {"model_type": "bert"}, "random_weights": True}, "remove random_weights"),
        (HF, {"id": "a/b", "prompt": "say"}, "{question}"),
        (HF, {"id": "a/b", "parts": {}}, "parts is empty"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        registry.load("models", settings["family"]).Settings.model_validate(settings | changes)
    assert message in str(caught.value)

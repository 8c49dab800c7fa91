"""MISS weights under the names of the released code."""

from __future__ import annotations

from typing import Any

import torch

from bench.models import miss
from bench.models.miss.model import MissModel
from tests.models.vqa import MISS

_TO_ORIGINAL = [
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
    return miss.Settings.model_validate(MISS | {"weights": weights})


def original(model: MissModel) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in model.module.state_dict().items():
        renamed = name
        for ours, theirs in _TO_ORIGINAL if name.startswith("vision_model") else []:
            renamed = renamed.replace(ours, theirs)
        state[renamed] = tensor.clone()
    return state

"""Attention of the ViT through ``torch.nn.functional.scaled_dot_product_attention``, which the library's BLIP lacks."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.models.blip.modeling_blip import BlipAttention


class FusedAttention(BlipAttention):
    """The library's modules under their own names; only what happens between them differs."""

    def forward(self, hidden_states: torch.Tensor, **_kwargs: Any) -> tuple[torch.Tensor, Any]:
        """States (batch, length, width) to the same shape; no probabilities: the kernel never holds all of them."""
        mixed = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, self.head_dim))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        context = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scale)
        return self.projection(context.transpose(1, 2).flatten(2)), None


def fuse(vision_model: Any) -> None:
    """Let every layer of a built ``BlipVisionModel`` use it; weights and hooks stay where they are."""
    for layer in vision_model.encoder.layers:
        layer.self_attn.__class__ = FusedAttention

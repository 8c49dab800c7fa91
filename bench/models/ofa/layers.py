"""OFA's transformer layers: pre-normalised, GELU, with NormFormer's three additions (Shleifer et al. 2021): a norm
behind each attention, one inside the feed-forward layer, and a trained scale per head.

Modules are named as in the released checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.nn import functional

SCALE_FACTOR = 2
"""Scores are divided by sqrt(2 x head size): content and position each give half of them."""


class KeysValues(NamedTuple):
    """Of one attention, each (batch, heads, length, head size)."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def length(self) -> int:
        """Tokens."""
        return self.keys.shape[2]

    def before(self, later: KeysValues) -> KeysValues:
        """These, followed by later ones."""
        keys, values = (torch.cat(pair, dim=2) for pair in zip(self, later, strict=True))
        return KeysValues(keys, values)


class Attention(nn.Module):
    """Multi-head attention with a bias on its scores."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.fused = fused
        self.scaling = (width // heads * SCALE_FACTOR) ** -0.5
        self.c_attn = nn.Parameter(torch.ones(heads))
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def keys_values(self, states: torch.Tensor) -> KeysValues:
        """Of states (batch, length, width)."""
        return KeysValues(self._split(self.k_proj(states)), self._split(self.v_proj(states)))

    def forward(
        self, states: torch.Tensor, past: KeysValues, bias: torch.Tensor, allowed: torch.Tensor
    ) -> torch.Tensor:
        """States (batch, queries, width) to the same shape.

        ``bias``: (1 or batch, heads, queries, keys), added to the scores; ``allowed``: bool, broadcasts to it.
        """
        query = self._split(self.q_proj(states)) * self.scaling
        keys, values = past
        if self.fused:
            mask = bias.masked_fill(~allowed, -torch.inf)
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=1.0)
        else:
            scores = (query @ keys.transpose(2, 3) + bias).masked_fill(~allowed, -torch.inf)
            mixed = scores.softmax(-1) @ values
        mixed = mixed * self.c_attn[:, None, None]
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)


class _Layer(nn.Module):
    """What both kinds of layers share: self-attention, feed-forward layer and residual branches."""

    def __init__(self, width: int, inner: int, heads: int, *, dropout: float, drop_path: float, fused: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, fused=fused)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.ffn_layernorm = nn.LayerNorm(inner)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def _branch(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.drop_path(self.dropout(states))
        return out

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.ffn_layernorm(functional.gelu(self.fc1(self.final_layer_norm(states))))
        return states + self._branch(self.fc2(inner))


class EncoderLayer(_Layer):
    """Self-attention and feed-forward layer."""

    def __init__(self, width: int, inner: int, heads: int, *, dropout: float, drop_path: float, fused: bool) -> None:
        super().__init__(width, inner, heads, dropout=dropout, drop_path=drop_path, fused=fused)
        self.attn_ln = nn.LayerNorm(width)

    def forward(
        self, states: torch.Tensor, bias: torch.Tensor, allowed: torch.Tensor, prefix: KeysValues | None
    ) -> torch.Tensor:
        """States (batch, length, width) to the same shape; ``prefix``: keys and values in front of the own ones."""
        normed = self.self_attn_layer_norm(states)
        own = self.self_attn.keys_values(normed)
        attended = self.self_attn(normed, prefix.before(own) if prefix else own, bias, allowed)
        return self._feed_forward(states + self._branch(self.attn_ln(attended)))


class DecoderLayer(_Layer):
    """Self-attention, attention to the encoder's states and feed-forward layer."""

    def __init__(self, width: int, inner: int, heads: int, *, dropout: float, drop_path: float, fused: bool) -> None:
        super().__init__(width, inner, heads, dropout=dropout, drop_path=drop_path, fused=fused)
        self.encoder_attn = Attention(width, heads, fused=fused)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn_ln = nn.LayerNorm(width)
        self.cross_attn_ln = nn.LayerNorm(width)

    def forward(
        self,
        states: torch.Tensor,
        bias: torch.Tensor,
        allowed: torch.Tensor,
        past: KeysValues | None,
        cross: KeysValues,
        cross_bias: torch.Tensor,
        cross_allowed: torch.Tensor,
    ) -> tuple[torch.Tensor, KeysValues]:
        """States (batch, length, width) to the same shape, and the keys and values of all tokens so far.

        ``past``: those of earlier tokens or of a prefix; ``cross``: those of the encoder's states.
        """
        normed = self.self_attn_layer_norm(states)
        own = self.self_attn.keys_values(normed)
        kept = past.before(own) if past else own
        states = states + self._branch(self.self_attn_ln(self.self_attn(normed, kept, bias, allowed)))
        attended = self.encoder_attn(self.encoder_attn_layer_norm(states), cross, cross_bias, cross_allowed)
        states = states + self._branch(self.cross_attn_ln(attended))
        return self._feed_forward(states), kept

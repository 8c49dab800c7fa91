"""OFA's transformer layers and position biases; modules are named as in the released checkpoints.

The layers are pre-normalised, with GELU and NormFormer's three additions (Shleifer et al. 2021): a norm behind each
attention, a norm inside the feed-forward layer, and a trained scale per head. Attention adds two biases to its scores,
as in TUPE (Ke et al. 2021): a product of learned absolute positions under their own projections, shared by all layers,
and a value per layer, head and distance. Neither depends on the batch, so neither has its dimension.
"""

from __future__ import annotations

import math

import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.nn import functional

from bench.models.ofa.settings import Sizes

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one attention, each (batch, heads, length, head size)."""


class Attention(nn.Module):
    """Multi-head attention with a bias on its scores."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads, self.fused = sizes.hidden_size, sizes.num_attention_heads, sizes.fused
        self.scaling = _scaling(sizes)
        self.c_attn = nn.Parameter(torch.ones(self.heads))
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def keys_values(self, states: torch.Tensor) -> KeysValues:
        """Keys and values of states (batch, length, width)."""
        return self._split(self.k_proj(states)), self._split(self.v_proj(states))

    def forward(
        self, states: torch.Tensor, attended: KeysValues, bias: torch.Tensor, allowed: torch.Tensor
    ) -> torch.Tensor:
        """States (batch, queries, width) to the same shape.

        ``bias``: (1 or batch, heads, queries, keys), added to the scores; ``allowed``: bool, broadcasts to it.
        """
        query = self._split(self.q_proj(states)) * self.scaling
        keys, values = attended
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
    """Self-attention, feed-forward layer and residual branches of both kinds of layers."""

    def __init__(self, sizes: Sizes, drop_path: float) -> None:
        super().__init__()
        width, inner = sizes.hidden_size, sizes.intermediate_size
        self.self_attn = Attention(sizes)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.ffn_layernorm = nn.LayerNorm(inner)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def _branch(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.drop_path(self.dropout(states))
        return out

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.ffn_layernorm(functional.gelu(self.fc1(self.final_layer_norm(states))))
        return states + self._branch(self.fc2(inner))


class EncoderLayer(_Layer):
    """Self-attention and feed-forward layer."""

    def __init__(self, sizes: Sizes, drop_path: float) -> None:
        super().__init__(sizes, drop_path)
        self.attn_ln = nn.LayerNorm(sizes.hidden_size)

    def forward(
        self, states: torch.Tensor, bias: torch.Tensor, allowed: torch.Tensor, prefix: KeysValues | None
    ) -> torch.Tensor:
        """States (batch, length, width) to the same shape."""
        normed = self.self_attn_layer_norm(states)
        new = self.self_attn.keys_values(normed)
        attended = self.self_attn(normed, _join(prefix, new), bias, allowed)
        return self._feed_forward(states + self._branch(self.attn_ln(attended)))


class DecoderLayer(_Layer):
    """Self-attention, attention to the encoder's states and feed-forward layer."""

    def __init__(self, sizes: Sizes, drop_path: float) -> None:
        super().__init__(sizes, drop_path)
        self.encoder_attn = Attention(sizes)
        self.encoder_attn_layer_norm, self.self_attn_ln, self.cross_attn_ln = (
            nn.LayerNorm(sizes.hidden_size) for _ in range(3)
        )

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
        new = self.self_attn.keys_values(normed)
        kept = _join(past, new)
        states = states + self._branch(self.self_attn_ln(self.self_attn(normed, kept, bias, allowed)))
        attended = self.encoder_attn(self.encoder_attn_layer_norm(states), cross, cross_bias, cross_allowed)
        states = states + self._branch(self.cross_attn_ln(attended))
        return self._feed_forward(states), kept


def _join(past: KeysValues | None, new: KeysValues) -> KeysValues:
    return new if past is None else (torch.cat([past[0], new[0]], dim=2), torch.cat([past[1], new[1]], dim=2))


def relative_tables(layers: int, rows: int, heads: int) -> nn.ModuleList:
    """One table (rows, heads) per layer: a bias for each distance."""
    return nn.ModuleList(nn.Embedding(rows, heads) for _ in range(layers))


def relative_bias(table: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Rows (queries, keys) of a table -> values (heads, queries, keys)."""
    assert isinstance(table, nn.Embedding)
    return functional.embedding(rows, table.weight).permute(2, 0, 1)


def absolute_bias(query: torch.Tensor, key: torch.Tensor, sizes: Sizes) -> torch.Tensor:
    """Product, per head, of projected positions: (length, width) and (length', width) to (heads, length, length')."""
    query, key = (x.view(len(x), sizes.num_attention_heads, -1).transpose(0, 1) for x in (query, key))
    return query @ key.transpose(1, 2) * _scaling(sizes)


def _scaling(sizes: Sizes) -> float:
    # Twice the head size: content and position each give half of a score.
    return float((2 * sizes.hidden_size / sizes.num_attention_heads) ** -0.5)


def token_buckets(buckets: int, longest: int) -> torch.Tensor:
    """Distance + ``longest`` - 1 -> row of a table of 2 x ``buckets`` - 1 rows, int64 of shape (2 x longest - 1,).

    Each distance up to half the buckets has its own row; beyond, rows widen logarithmically up to ``longest``.
    """
    distance = torch.arange(1 - longest, longest)
    half = buckets // 2
    far = distance.abs().clamp(min=half)
    widening = torch.log(far / half) / math.log((longest - 1) / half) * (half - 1)
    wide = (torch.ceil(widening).long() + half) * distance.sign()
    return torch.where(distance.abs() <= half, distance, wide) + buckets - 1


def image_rows(buckets: int, edge: int) -> torch.Tensor:
    """Pair of patches -> row of a table of (2 x buckets - 1)^2 + 3 rows, int64 of shape (edge^2, edge^2).

    The last three rows are for pairs with a begin of sentence, in images that the decoder writes.
    """
    y, x = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    y, x = y.flatten(), x.flatten()
    down, right = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (down + buckets - 1) * (2 * buckets - 1) + right + buckets - 1


def image_places(buckets: int, edge: int) -> torch.Tensor:
    """Rows of the absolute image positions of ``edge`` x ``edge`` patches, row by row; row 0 is a begin of sentence."""
    return (torch.arange(edge)[:, None] * buckets + torch.arange(edge)[None, :] + 1).flatten()

"""What OFA's encoder and decoder share: sizes, positions, tables, and how peft's prefixes come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig

from bench.models.ofa.layers import SCALE_FACTOR, KeysValues
from bench.models.ofa.positions import AbsoluteBias, RelativeTables, token_buckets

if TYPE_CHECKING:
    from transformers import Cache

EOS_ROOM = 2
"""Rows of the position table beyond the longest text, as fairseq makes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """As ``Settings.sizes`` gives them, with the vocabulary's length known."""

    hidden_size: int
    intermediate_size: int
    encoder_layers: int
    decoder_layers: int
    num_attention_heads: int
    resnet_layers: Sequence[int]
    resnet_channels: Sequence[int]
    image_buckets: int
    token_buckets: int
    max_positions: int
    vocab_size: int
    dropout: float
    drop_path: float
    image_size: int
    fused: bool
    """Whether attention is torch's fused one."""

    def config(self, layers: int) -> PretrainedConfig:
        """What peft asks of a part: how many virtual keys and values there are, and how wide."""
        asked = {"hidden_size": self.hidden_size, "num_attention_heads": self.num_attention_heads}
        return PretrainedConfig.from_dict(asked | {"num_hidden_layers": layers, "vocab_size": self.vocab_size})

    def layer(self, index: int, layers: int) -> dict[str, Any]:
        """Arguments of the layer of that index."""
        return {
            "width": self.hidden_size,
            "inner": self.intermediate_size,
            "heads": self.num_attention_heads,
            "dropout": self.dropout,
            "drop_path": self.drop_path * index / max(1, layers - 1),
            "fused": self.fused,
        }


class Stack(nn.Module):
    """What encoder and decoder share: positions, tables and the token embedding, which is another module's."""

    token_rows: torch.Tensor

    def __init__(self, sizes: Sizes, layers: int, embedding: nn.Embedding) -> None:
        super().__init__()
        width, heads = sizes.hidden_size, sizes.num_attention_heads
        self.config = sizes.config(layers)
        self.checkpointing = False
        self.embed_positions = nn.Embedding(sizes.max_positions + EOS_ROOM, width)
        self.embed_image_positions = nn.Embedding(sizes.image_buckets**2 + 1, width)
        self.pos_ln, self.image_pos_ln = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_rel_pos_table_list = RelativeTables(layers, 2 * sizes.token_buckets - 1, heads)
        self.image_rel_pos_table_list = RelativeTables(layers, (2 * sizes.image_buckets - 1) ** 2 + 3, heads)
        self.layernorm_embedding, self.layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.absolute = AbsoluteBias(width, heads, SCALE_FACTOR)
        self.longest = sizes.max_positions
        self.register_buffer("token_rows", token_buckets(sizes.token_buckets, sizes.max_positions), persistent=False)
        self._embedding = (embedding,)  # in a tuple, which does not make it a module of this one

    @property
    def device(self) -> torch.device:
        """Where peft puts a prefix."""
        return self.layer_norm.weight.device

    def embed(self, ids: torch.Tensor | None, embeds: torch.Tensor | None) -> torch.Tensor:
        """Tokens (batch, length), or their embeddings, to embeddings (batch, length, width)."""
        if embeds is None:
            assert ids is not None
            embeds = self._embedding[0](ids)
        if embeds.shape[1] > self.longest:
            raise ValueError(f"a text of {embeds.shape[1]} tokens; the position table ends at {self.longest}")
        return embeds

    def distances(self, length: int) -> torch.Tensor:
        """Rows of the token table for each pair of tokens, (length, length)."""
        place = torch.arange(length, device=self.token_rows.device)
        rows: torch.Tensor = self.token_rows[place[:, None] - place[None, :] + self.longest - 1]
        return rows

    def run(self, layer: nn.Module, *args: Any) -> Any:
        """A layer, whose activations are kept or, under checkpointing, made again."""
        if self.checkpointing and self.training:
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)


def prefix_of(cache: Cache | None, layers: int) -> list[KeysValues | None]:
    """The keys and values that peft puts in front of each layer's own, if any."""
    if cache is None:
        return [None] * layers
    held: Any = cache.layers
    return [KeysValues(layer.keys, layer.values) for layer in held]


def behind(columns: int, bias: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bias and mask with columns in front for a prefix, which has no position and which all may see."""
    if columns == 0:
        return bias, allowed
    return functional.pad(bias, (columns, 0)), functional.pad(allowed, (columns, 0), value=True)

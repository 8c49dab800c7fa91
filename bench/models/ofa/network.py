"""OFA's network in torch, with timm's ResNet; modules have the names of the released checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PretrainedConfig

from bench.models.common.parts import freeze_batch_norms
from bench.models.ofa import layers as _layers
from bench.models.ofa.layers import DecoderLayer, EncoderLayer, KeysValues
from bench.models.ofa.settings import Sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """The encoder's output, which the decoder attends to."""

    states: torch.Tensor
    """(batch, length, width): image patches first, then the question."""
    allowed: torch.Tensor
    """(batch, length), bool: not padding."""
    positions: torch.Tensor
    """(length, width), normalised."""


@dataclass(kw_only=True, slots=True)
class Decoded:
    """The decoder's scores, and its cache for the next token."""

    logits: torch.Tensor
    """(batch, length, vocabulary)."""
    past: list[KeysValues]
    """Keys and values of each layer: of a prefix, then of every token so far."""
    allowed: torch.Tensor
    """(batch, tokens so far), bool: not padding."""
    places: torch.Tensor
    """Position of each of these tokens, int64 of shape (batch, tokens so far)."""
    cross: list[KeysValues]
    """Keys and values of the encoder's states, in each layer."""

    def select_rows(self, index: torch.Tensor) -> None:
        """Keep the rows ``index`` of the tokens so far, in this order; ``cross`` stays."""
        self.past = [_select(layer, index) for layer in self.past]
        self.allowed, self.places = self.allowed.index_select(0, index), self.places.index_select(0, index)

    def repeat(self, encoded: Encoded, times: int) -> Encoded:
        """Repeat each row for as many beams, and return ``encoded`` repeated likewise. Drops the scores."""
        index = torch.arange(len(self.allowed), device=self.allowed.device).repeat_interleave(times)
        self.logits = self.logits[:0]
        self.select_rows(index)
        self.cross = [_select(layer, index) for layer in self.cross]
        states, allowed = (x.repeat_interleave(times, dim=0) for x in (encoded.states, encoded.allowed))
        return Encoded(states=states, allowed=allowed, positions=encoded.positions)


def _select(layer: KeysValues, index: torch.Tensor) -> KeysValues:
    return layer[0].index_select(0, index), layer[1].index_select(0, index)


class Trunk(ResNet):
    """The stem and first three stages of a ResNet: images to features of a 16th of their edge."""

    def __init__(self, layers: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__(
            cast("Any", Bottleneck), tuple(layers), channels=tuple(channels), num_classes=0, zero_init_last=False
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, edge, edge) to (batch, patches, 4 x last channels)."""
        features: torch.Tensor = images
        modules: Any = (self.conv1, self.bn1, self.act1, self.maxpool, self.layer1, self.layer2, self.layer3)
        for module in modules:
            features = module(features)
        return features.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> Trunk:
        """Keep the statistics of frozen batch norms."""
        super().train(mode)
        freeze_batch_norms(self)
        return self


class Stack(nn.Module):
    """Positions and tables of encoder and decoder, and a reference to the token embedding."""

    token_rows: torch.Tensor

    def __init__(self, sizes: Sizes, layers: int, embedding: nn.Embedding) -> None:
        super().__init__()
        width, heads = sizes.hidden_size, sizes.num_attention_heads
        fields = {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers}
        # peft reads the number and width of virtual keys and values here.
        self.config = PretrainedConfig.from_dict(fields | {"vocab_size": sizes.vocab_size})
        self.checkpointing = False
        self.embed_positions = nn.Embedding(sizes.max_positions + 2, width)  # two more rows, as fairseq makes them
        self.embed_image_positions = nn.Embedding(sizes.image_buckets**2 + 1, width)
        self.pos_ln, self.image_pos_ln = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token_rel_pos_table_list = _layers.relative_tables(layers, 2 * sizes.token_buckets - 1, heads)
        self.image_rel_pos_table_list = _layers.relative_tables(layers, (2 * sizes.image_buckets - 1) ** 2 + 3, heads)
        self.layernorm_embedding, self.layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.sizes, self.longest = sizes, sizes.max_positions
        rows = _layers.token_buckets(sizes.token_buckets, sizes.max_positions)
        self.register_buffer("token_rows", rows, persistent=False)
        self._embedding = (embedding,)  # in a tuple, which does not make it a module of this one

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding."""
        return self._embedding[0]

    @property
    def device(self) -> torch.device:
        """The device that peft puts a prefix on."""
        return self.layer_norm.weight.device

    def embed(self, ids: torch.Tensor | None, embeds: torch.Tensor | None) -> torch.Tensor:
        """Tokens (batch, length), or their embeddings, to embeddings (batch, length, width)."""
        if embeds is None:
            assert ids is not None
            embeds = self.embedding(ids)
        if embeds.shape[1] > self.longest:
            raise ValueError(f"a text of {embeds.shape[1]} tokens; the position table ends at {self.longest}")
        return embeds

    def distances(self, length: int) -> torch.Tensor:
        """Rows of the token table for each pair of tokens, (length, length)."""
        place = torch.arange(length, device=self.token_rows.device)
        rows: torch.Tensor = self.token_rows[place[:, None] - place[None, :] + self.longest - 1]
        return rows

    def run(self, layer: nn.Module, *args: Any) -> Any:
        """Call a layer; under checkpointing the backward pass recomputes its activations."""
        if self.checkpointing and self.training:
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)


class Encoder(Stack):
    """Image patches and question together."""

    image_rows: torch.Tensor
    image_places: torch.Tensor

    def __init__(self, sizes: Sizes, embedding: nn.Embedding) -> None:
        count, width = sizes.encoder_layers, sizes.hidden_size
        super().__init__(sizes, count, embedding)
        self.embed_images = Trunk(sizes.resnet_layers, sizes.resnet_channels)
        self.image_proj = nn.Linear(4 * sizes.resnet_channels[-1], width)
        self.type_embedding = nn.Embedding(2, width)
        self.patch_layernorm_embedding = nn.LayerNorm(width)
        self.pos_q_linear, self.pos_k_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.layers: Any = nn.ModuleList(EncoderLayer(sizes, rate) for rate in _drop_paths(sizes, count))
        edge = sizes.image_size // 16
        self.register_buffer("image_rows", _layers.image_rows(sizes.image_buckets, edge), persistent=False)
        self.register_buffer("image_places", _layers.image_places(sizes.image_buckets, edge), persistent=False)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor,
        past_key_values: Cache | None = None,
        **_: Any,
    ) -> Encoded:
        """Question (batch, length) and images (batch, 3, edge, edge); ``past_key_values``: a prefix."""
        text = self.embed(input_ids, inputs_embeds)
        patches = self.image_proj(self.embed_images(pixel_values))
        n_image, n_text = patches.shape[1], text.shape[1]
        kind = self.type_embedding.weight
        text = self.dropout(self.layernorm_embedding(text + kind[0]))
        patches = self.dropout(self.patch_layernorm_embedding(patches + kind[1]))
        assert attention_mask is not None
        allowed = functional.pad(attention_mask[:, -n_text:].bool(), (n_image, 0), value=True)
        states = torch.cat([patches, text], dim=1) * allowed[:, :, None].to(patches.dtype)
        # No name for the first: a tensor that lives on to the end of the call counts in the peak of memory.
        positions = torch.cat(
            [
                self.image_pos_ln(self.embed_image_positions(self.image_places)),
                self.pos_ln(self.embed_positions.weight[:n_text]),
            ]
        )
        shared = _layers.absolute_bias(self.pos_q_linear(positions), self.pos_k_linear(positions), self.sizes)
        for i, (layer, prefix) in enumerate(
            zip(self.layers, _prefixes(past_key_values, len(self.layers)), strict=True)
        ):
            columns = prefix[0].shape[2] if prefix else 0
            bias, seen = _behind(columns, self._bias(shared, i, n_image)[None], allowed[:, None, None])
            states = self.run(layer, states, bias, seen, prefix)
        return Encoded(states=self.layer_norm(states), allowed=allowed, positions=positions)

    def _bias(self, shared: torch.Tensor, layer: int, n_image: int) -> torch.Tensor:
        """(heads, length, length): distances count within the image and within the question."""
        bias = shared.clone()
        bias[:, :n_image, :n_image] += _layers.relative_bias(self.image_rel_pos_table_list[layer], self.image_rows)
        rows = self.distances(shared.shape[1] - n_image)
        bias[:, n_image:, n_image:] += _layers.relative_bias(self.token_rel_pos_table_list[layer], rows)
        return bias


class Decoder(Stack):
    """Answer tokens, each from the tokens before it and the encoder's states."""

    def __init__(self, sizes: Sizes, embedding: nn.Embedding) -> None:
        count, width = sizes.decoder_layers, sizes.hidden_size
        super().__init__(sizes, count, embedding)
        self.code_layernorm_embedding = nn.LayerNorm(width)
        self.self_pos_q_linear, self.self_pos_k_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.cross_pos_q_linear, self.cross_pos_k_linear = nn.Linear(width, width), nn.Linear(width, width)
        self.layers: Any = nn.ModuleList(DecoderLayer(sizes, rate) for rate in _drop_paths(sizes, count))

    def image_parameters(self) -> list[nn.Parameter]:
        """Trainable tensors for writing images, which an answer's loss does not use."""
        only_images = (self.embed_image_positions, self.image_pos_ln, self.image_rel_pos_table_list)
        modules = (*only_images, self.code_layernorm_embedding)
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        *,
        encoded: Encoded,
        past_key_values: Cache | None = None,
        **_: Any,
    ) -> Decoded:
        """Scores of a whole text (batch, length), padded at its end; ``past_key_values``: a prefix."""
        text = self.embed(input_ids, inputs_embeds)
        length = text.shape[1]
        assert attention_mask is not None
        place = torch.arange(length, device=text.device)
        so_far = Decoded(
            logits=text,
            past=[],
            allowed=attention_mask[:, -length:].bool(),
            places=place.expand(len(text), -1),
            cross=[layer.encoder_attn.keys_values(encoded.states) for layer in self.layers],
        )
        causal = (place[:, None] >= place[None, :]) & so_far.allowed[:, None]
        prefixes = _prefixes(past_key_values, len(self.layers))
        return self._decode(text, encoded, so_far, prefixes, causal[:, None], place=None)

    def step(self, ids: torch.Tensor, encoded: Encoded, so_far: Decoded) -> Decoded:
        """Scores after one more token (batch, 1)."""
        place = so_far.allowed.sum(1, keepdim=True)
        one = torch.ones_like(ids, dtype=torch.bool)
        so_far.allowed = torch.cat([so_far.allowed, one], dim=1)
        so_far.places = torch.cat([so_far.places, place], dim=1)
        return self._decode(
            self.embed(ids, None), encoded, so_far, so_far.past, so_far.allowed[:, None, None], place=place
        )

    def _decode(
        self,
        text: torch.Tensor,
        encoded: Encoded,
        so_far: Decoded,
        past: Sequence[KeysValues | None],
        allowed: torch.Tensor,
        *,
        place: torch.Tensor | None,
    ) -> Decoded:
        """``place``: positions of the new tokens, where rows have different ones."""
        tokens = so_far.allowed.shape[1]
        shared, cross_bias = self._shared_biases(tokens, encoded.positions)
        cross_bias = cross_bias[None] if place is None else cross_bias[:, place].transpose(0, 1)
        rows, cross_seen = self.distances(tokens), encoded.allowed[:, None, None]
        states, kept = self.dropout(self.layernorm_embedding(text)), []
        for i, (layer, earlier) in enumerate(zip(self.layers, past, strict=True)):
            bias = shared + _layers.relative_bias(self.token_rel_pos_table_list[i], rows)
            if place is None:
                bias = bias[None]
            else:
                bias = bias[:, place[:, :, None], so_far.places[:, None, :]].transpose(0, 1)
            columns = earlier[0].shape[2] + text.shape[1] - tokens if earlier else 0
            bias, seen = _behind(columns, bias, allowed)
            states, keys_values = self.run(layer, states, bias, seen, earlier, so_far.cross[i], cross_bias, cross_seen)
            kept.append(keys_values)
        so_far.past = kept
        so_far.logits = functional.linear(self.layer_norm(states), self.embedding.weight)
        return so_far

    def _shared_biases(self, tokens: int, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Absolute biases that all layers share: to tokens, and to the encoder's states."""
        positions = self.pos_ln(self.embed_positions.weight[:tokens])
        bias, sizes = _layers.absolute_bias, self.sizes
        to_tokens = bias(self.self_pos_q_linear(positions), self.self_pos_k_linear(positions), sizes)
        return to_tokens, bias(self.cross_pos_q_linear(positions), self.cross_pos_k_linear(source), sizes)


class Network(nn.Module):
    """Encoder and decoder around one token embedding, which may belong to either."""

    def __init__(self, sizes: Sizes, *, embedding: str, initializer_range: float, pad: int) -> None:
        super().__init__()
        tokens = nn.Embedding(sizes.vocab_size, sizes.hidden_size, padding_idx=pad)
        self.encoder: Any = Encoder(sizes, tokens)
        self.decoder: Any = Decoder(sizes, tokens)
        owner = {"encoder": self.encoder, "decoder": self.decoder}.get(embedding, self)
        owner.embed_tokens = tokens
        self._initialise(initializer_range)

    def _initialise(self, std: float) -> None:
        """Initialise as BERT: matrices normal, biases zero, norms one; the ResNet as timm does."""
        trunk = set(self.encoder.embed_images.modules())
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding) and module not in trunk:
                nn.init.normal_(module.weight, std=std)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
                elif module.padding_idx is not None:
                    nn.init.zeros_(module.weight[module.padding_idx].detach())


def _drop_paths(sizes: Sizes, layers: int) -> list[float]:
    return [sizes.drop_path * i / max(1, layers - 1) for i in range(layers)]


def _prefixes(cache: Cache | None, layers: int) -> Sequence[KeysValues | None]:
    """Keys and values of peft's prefix for each layer, or null."""
    held: Any = cache.layers if cache is not None else []
    return [(layer.keys, layer.values) for layer in held] or [None] * layers


def _behind(columns: int, bias: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bias and mask with columns in front for a prefix: without positions, visible to every token."""
    if columns == 0:
        return bias, allowed
    return functional.pad(bias, (columns, 0)), functional.pad(allowed, (columns, 0), value=True)

"""What BLIP of transformers 5.17 to 5.24 lacks: fused attention and stochastic depth in the ViT, and gradient
checkpointing beside a prefix."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import Cache
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextLayer, BlipTextSelfAttention

from bench.patches.transformers import cache_name


class FusedAttention(BlipAttention):
    """Attention of the ViT by ``scaled_dot_product_attention``; the library's modules keep their names."""

    def forward(self, hidden_states: torch.Tensor, **_kwargs: Any) -> tuple[torch.Tensor, Any]:
        """States (batch, length, width) to the same shape, without probabilities, which the kernel never holds."""
        mixed = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, self.head_dim))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        context = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scale)
        return self.projection(context.transpose(1, 2).flatten(2)), None


def fuse_attention(vision_model: Any) -> None:
    """Give every layer of a built ``BlipVisionModel`` fused attention."""
    for layer in vision_model.encoder.layers:  # the class alone changes: weights and hooks stay
        layer.self_attn.__class__ = FusedAttention


def add_drop_path(vision_model: Any, last: float) -> None:
    """Add stochastic depth to both residual branches of every layer of the ViT, as in the original code."""
    if last == 0:
        return
    from timm.layers.drop import drop_path  # half a second

    def drop(branch: torch.nn.Module, _args: Any, output: Any, rate: float) -> Any:
        if isinstance(output, tuple):  # attention returns its probabilities, too
            return drop_path(output[0], rate, branch.training), *output[1:]
        return drop_path(output, rate, branch.training)

    layers = vision_model.encoder.layers
    for layer, rate in zip(layers, np.linspace(0, last, len(layers)).tolist(), strict=True):
        if rate:
            layer.self_attn.register_forward_hook(partial(drop, rate=rate))
            layer.mlp.register_forward_hook(partial(drop, rate=rate))


def enable_checkpointing(model: Any) -> None:
    """Recompute the activations of every layer of a ``BlipForQuestionAnswering`` in the backward pass."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # since 5.23
    enable({"use_reentrant": False})
    # The library makes embeddings need gradients, as reentrant checkpoints require. These are not reentrant, and frozen
    # layers in front of the first adapter would run backward for nothing.
    model.disable_input_require_grads()
    # A prefix comes as a cache, to which a layer that runs twice appends twice; the library drops it with a warning.
    # Here each run appends to a copy of the cache, so the prefix stays.
    for module in model.modules():
        if isinstance(module, BlipTextLayer):
            module._can_checkpoint_with_cache = True
        elif isinstance(module, BlipTextSelfAttention):
            name = cache_name(BlipTextSelfAttention.forward)
            module.register_forward_pre_hook(partial(_append_to_copy, name), with_kwargs=True)


def _append_to_copy(name: str, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cache: Any = kwargs.get(name)
    if cache is None or not module.training:
        return args, kwargs
    if kwargs.get("encoder_hidden_states") is not None:
        return args, kwargs | {name: None}  # cross-attention has no prefix, and training no next token
    copied: Cache = copy.copy(getattr(cache, "self_attention_cache", cache))
    copied.layers = list(copied.layers)
    copied.layers[module.layer_idx] = copy.copy(copied.layers[module.layer_idx])
    return args, kwargs | {name: copied}

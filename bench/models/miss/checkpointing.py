"""Gradient checkpointing of MISS: a layer's activations are computed again in the backward pass instead of kept."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from transformers import Cache
from transformers.models.blip.modeling_blip_text import BlipTextLayer, BlipTextSelfAttention

from bench.patches.transformers import cache_name


def checkpoint(model: Any) -> None:
    """Switch it on in every layer of a ``BlipForQuestionAnswering``, whatever adapters are on its parts.

    The library drops a prefix from checkpointed layers, with no more than a warning: a prefix comes as a cache, and a
    layer that runs twice would append to its cache twice. Here each run appends to a copy, so the prefix can stay.
    """
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # since 5.23
    enable({"use_reentrant": False})
    # The library lets all embeddings need gradients, for reentrant checkpoints, which want an input that does. These do
    # not, and frozen layers in front of the first adapter would be run backward for nothing.
    model.disable_input_require_grads()
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
    own: Cache = copy.copy(getattr(cache, "self_attention_cache", cache))
    own.layers = list(own.layers)
    own.layers[module.layer_idx] = copy.copy(own.layers[module.layer_idx])
    return args, kwargs | {name: own}

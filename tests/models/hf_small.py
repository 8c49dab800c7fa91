"""Configurations of any architecture of the installed transformers, made shallow, or small, by what fields are called.

A configuration whose sizes depend on one another in ways of its own may refuse to be built so; whoever tests over all
architectures passes over these and says how many are left.
"""

from __future__ import annotations

import re
from typing import Any

from transformers import CONFIG_MAPPING

_DEPTH = re.compile(r"(.*_)?(num_hidden_layers|num_layers|layers|n_layers?|depth|num_blocks|max_window_layers)")
_LAYERS = 2
_IMAGE_TOKENS = {"vocabulary_map": {"<image>": 5, "IMGIMGA": 6, "<|extra_200|>": 5, "<|visual token 000000|>": 7}}
GIVEN: dict[str, dict[str, Any]] = {
    "aya_vision": {
        "vision_config": {"model_type": "siglip_vision_model"},
        "text_config": {"model_type": "cohere2"},
    },
    "chameleon": _IMAGE_TOKENS,
    "emu3": _IMAGE_TOKENS,
    "gemma4": {"vision_config": {}},
    "gemma4_unified": {"vision_config": {}},
    "vision-encoder-decoder": {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "bert"}},
}
"""What an architecture has no default for, or one without a vision tower."""


def shallow(model_type: str) -> Any:
    """Two layers of the published widths, to be built on meta. Raises what the configuration raises."""
    config = CONFIG_MAPPING[model_type](**GIVEN.get(model_type, {}))
    config.architectures = []
    _make_shallow(config)
    return config


def _make_shallow(config: Any) -> None:
    for name in config.sub_configs:
        if hasattr(inner := getattr(config, name, None), "sub_configs"):
            _make_shallow(inner)
    old = {name: value for name, value in vars(config).items() if _DEPTH.fullmatch(name) and _deep(value)}
    per_layer = {name: value for name, value in vars(config).items() if isinstance(value, list)}
    for name in old:
        setattr(config, name, _LAYERS)
    for name, value in per_layer.items():
        if len(value) in old.values():
            setattr(config, name, value[:_LAYERS])


def _deep(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > _LAYERS


_SIZES: list[tuple[re.Pattern[str], int]] = [
    (re.compile(pattern), size)
    for pattern, size in (
        (r".*vocab_size|vocab_size_per_layer_input", 96),
        (r"(.*_)?(num_hidden_layers|num_layers|layers|n_layers?|depth|num_blocks|num_(en|de)coder_layers)", _LAYERS),
        (r"num_key_value_heads|num_kv_heads|n_head_kv|.*_kv_heads|num_query_groups", 2),
        (r"(.*_)?(num_attention_heads|n_heads?|num_heads|attention_heads)", 2),
        (r"d_kv|attention_head_size|kv_channels|head_size|.*head_dim", 16),
        (r"hidden_size|d_model|n_embd|dim|emb(ed)?_dim|embedding_(dim|size)|word_embed_proj_dim|hidden_dim", 32),
        (r"model_dim|attention_hidden_size|lru_width|.*_hidden_size|projection_dim", 32),
        (r".*intermediate_size|(.*_)?ffn_dim|d_ff|d_inner|n_inner|.*ffn_hidden.*|mlp_dim", 64),
        (r".*lora_(rank|dim)", 16),
        (r".*num(_local)?_experts|n_routed_experts", 4),
        (r".*experts_per_tok(en)?|(?!index).*top_?k|n_group|topk_group", 1),
        (r".*max_position.*|n_positions|n_ctx|max_seq.*", 256),
    )
]
_OWN: dict[str, dict[str, Any]] = {"codegen": {"rotary_dim": 8}, "gptj": {"rotary_dim": 8}, "xlnet": {"d_head": 16}}


def small(model_type: str) -> dict[str, Any]:
    """A configuration file of a few thousand weights. Raises what the configuration raises."""
    config = CONFIG_MAPPING[model_type](**GIVEN.get(model_type, {}))
    _make_small(config)
    for name, value in _OWN.get(model_type, {}).items():
        setattr(config, name, value)
    return {**config.to_dict(), "transformers_version": "5"}


def _make_small(config: Any) -> None:
    for name in config.sub_configs:
        if hasattr(inner := getattr(config, name, None), "sub_configs"):
            _make_small(inner)
    usual = {own: name for name, own in config.attribute_map.items()}
    depths = set()
    for name, value in list(vars(config).items()):
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        known = (usual.get(name, name), name)
        size = next((size for pattern, size in _SIZES for each in known if pattern.fullmatch(each)), value)
        if size < value:
            depths |= {value} if size == _LAYERS else set()
            setattr(config, name, size)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) > _LAYERS and len(value) in depths:
            last = next((kind for kind in reversed(value) if kind != value[0]), value[-1])  # keep both kinds of layers
            setattr(config, name, [value[0], last])

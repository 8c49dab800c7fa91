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

"""The parts of a transformers model that declares none, found in the library's own structure.

``head``: what is outside the base model, the layer that writes tokens, and poolers. ``embeddings``: modules in front of
the blocks that are named so, tables of positions among them. ``decoder``: the decoder of an encoder-decoder model, and
what is left of a model that only decodes; in one that sees, its language model. ``encoder``: what is left, with the
final normalisation behind its blocks; in a model that sees, its vision tower and what connects it.

A tensor of several names, such as a tied output layer, belongs to the first part in this order that has it:
embeddings, encoder, decoder, head. A part without tensors is none.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from bench.models._parts import Paths, covering

EMBEDDINGS, ENCODER, DECODER, HEAD = NAMES = ("embeddings", "encoder", "decoder", "head")
_EMBEDDING = re.compile(r".*embed(ding|der|s$|_|$).*|w[tp]e|shared|project_in|patch_embed.*|rel_embeddings")
_HEAD = re.compile(r".*pooler.*|cls|.*classifier|classification_head|score|lm_head|head|qa_outputs|embed_out")
_VISION = re.compile(r".*(vision|visual|image_encoder|image_tower|projector|connector|multi_modal|qformer|merger).*")
_DECODER = re.compile(r".*decoder.*")


def default_parts(model: Any, *, decoder_only: bool) -> Paths:
    """Part -> paths of its modules and parameters: disjoint, and together the whole model."""
    names: dict[str, list[str]] = {part: [] for part in NAMES}
    owners = {name: _part_of(name, model, decoder_only=decoder_only) for name in _names(model)}
    seen: set[int] = set()
    for part in NAMES:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if owners[name] == part and id(parameter) not in seen:
                names[part].append(name)
        seen |= {id(model.get_parameter(name)) for name in names[part]}
    return {part: covering(model, own) for part, own in names.items() if own}


def is_vision(name: str) -> bool:
    """Whether a tensor of a model that sees is of its vision tower or what connects it."""
    return any(_VISION.fullmatch(step) for step in name.split("."))


def _names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def _part_of(name: str, model: Any, *, decoder_only: bool) -> str:
    steps = name.split(".")
    sees = hasattr(model.config, "vision_config")
    if sees and is_vision(name):
        return ENCODER
    if _is_head(steps, model):
        return HEAD
    ahead = steps[: next((i for i, step in enumerate(steps) if step.isdigit()), len(steps))]  # of the blocks
    if any(_EMBEDDING.fullmatch(step) for step in ahead):
        return EMBEDDINGS
    if decoder_only or sees or model.config.is_encoder_decoder:
        has_encoder = not decoder_only and any(step == "encoder" or "text_encoder" in step for step in steps)
        return ENCODER if has_encoder and not any(map(_DECODER.fullmatch, steps)) else DECODER
    return ENCODER


def _is_head(steps: list[str], model: Any) -> bool:
    prefix = model.base_model_prefix
    if prefix and hasattr(model, prefix):
        if steps[0] != prefix:
            return True
        steps = steps[1:]
    ahead = steps[: next((i for i, step in enumerate(steps) if step.isdigit()), len(steps))]
    return any(_HEAD.fullmatch(step) for step in ahead)

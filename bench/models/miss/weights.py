"""Loading MISS weights: strictly. A missing, unexpected or misshapen tensor is an error that names it.

``transformers`` 5 renamed modules of several models; its lenient loading then leaves layers random without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from bench.errors import WeightsError
from bench.models.common import weights
from bench.models.common.weights import State

if TYPE_CHECKING:
    from transformers import BlipForQuestionAnswering

POSITIONS = "vision_model.embeddings.position_embedding"
_ORIGINAL = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", POSITIONS),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
)
"""BLIP's original names (those of MISS and MILE) -> the library's; the text models' names are the same."""
_NOT_OURS = re.compile(
    r"(visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m|vision_proj|text_proj|itm_head)\..*"
    r"|image_queue|text_queue|queue_ptr|idx_queue|ptr_queue|temp"
    r"|(text_encoder|text_decoder\.bert)\.embeddings\.position_ids"
)
"""Known extras: momentum copies, contrastive queues and heads of pre-training, and buffers older libraries saved."""


def read(path: Path) -> State:
    """The tensors of a ``.safetensors`` or torch file, wrappers removed. Raises WeightsError."""
    return {name.removeprefix("module."): tensor for name, tensor in weights.read(path).items()}


def load(model: BlipForQuestionAnswering, state: State, source: str) -> None:
    """Copy ``state`` into ``model``, every tensor accounted for. Raises WeightsError that names what does not fit."""
    state = {_library_name(name): tensor for name, tensor in state.items() if not _NOT_OURS.fullmatch(name)}
    own = model.state_dict()
    state = _untied(state, dict(model._tied_weights_keys or {}), source)
    if POSITIONS in state:
        state[POSITIONS] = interpolate_positions(state[POSITIONS], own[POSITIONS].shape[1])
    expected = own.keys() - dict(model._tied_weights_keys or {}).keys()
    problems = [
        *_named("missing", expected - state.keys()),
        *_named("unexpected", state.keys() - expected),
        *_named(
            "of another shape",
            (n for n in expected & state.keys() if own[n].shape != state[n].shape),
            lambda n: f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}",
        ),
    ]
    if problems:
        raise WeightsError(f"{source} does not fit the model: " + "; ".join(problems))
    model.load_state_dict(state, strict=False)  # strict above; the tied names are one tensor with their sources
    model.tie_weights()


def interpolate_positions(table: torch.Tensor, length: int) -> torch.Tensor:
    """Resize a ViT's position table, shape (1, 1 + patches, width), to ``length`` positions, as BLIP does (bicubic)."""
    old, new = round((table.shape[1] - 1) ** 0.5), round((length - 1) ** 0.5)
    if old == new or old * old != table.shape[1] - 1 or new * new != length - 1:
        return table
    grid = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False).to(table.dtype)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _library_name(name: str) -> str:
    for pattern, replacement in _ORIGINAL:
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return name


def _untied(state: State, tied: dict[str, str], source: str) -> State:
    """Keep one of each pair of tied names; a file in which they differ belongs to another model."""
    state = dict(state)
    for alias, kept in tied.items():
        copy = state.pop(alias, None)
        if copy is None:
            continue
        if not torch.equal(state.setdefault(kept, copy), copy):
            raise WeightsError(f"{source}: {alias} and {kept} are one tensor in this model, but differ in the file")
    return state


def _named(what: str, names: Iterable[str], describe: Callable[[str], str] = str) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f", and {len(listed) - 10} more" if len(listed) > 10 else ""
    return [f"{len(listed)} {what}: {', '.join(describe(name) for name in listed[:10])}{more}"]

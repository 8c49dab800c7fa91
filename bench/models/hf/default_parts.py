"""Default parts of a transformers model, by the library's structure.

``head``: modules outside the base model, the layer that writes tokens, and poolers. ``embeddings``: modules of such
names in front of the blocks, tables of positions among them. ``decoder``: the decoder of an encoder-decoder model, or
the rest of a decoder-only model. ``encoder``: the rest, with the final normalisation behind its blocks.

In a model that also reads images or sounds, ``encoder`` is its towers, with all layers that the library builds into
them, and the encoder of its text model; ``decoder`` the blocks of its text model; ``connector`` the layers between:
projections, resamplers, a Q-Former with its queries, single tensors such as the end of a row of patches.

A tensor of several names, such as a tied output layer, belongs to the first part with one of its names, in the order
embeddings, encoder, connector, decoder, head. A part without tensors is left out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from bench.models.common.parts import Paths, minimal_paths, modules_called

EMBEDDINGS, ENCODER, CONNECTOR, DECODER, HEAD = NAMES = ("embeddings", "encoder", "connector", "decoder", "head")
_EMBEDDING = re.compile(r".*embed(ding|der|s$|_|$).*|w[tp]e|shared|project_in|patch_embed.*|rel_embeddings")
_HEAD = re.compile(r".*pooler.*|cls|.*classifier|classification_head|score|lm_head|head|qa_outputs|embed_out")
_DECODER = re.compile(r".*decoder.*")
# Names of the library's configurations of towers.
_TOWER = re.compile(r"(.*_)?(vision|image|video|audio|speech)_config")
# Names of the library's inputs of a tower.
_RAW = ("pixel_values", "flattened_patches", "input_features", "input_values", "audio_mel")


def default_parts(model: Any, *, decoder_only: bool) -> Paths:
    """Part -> paths of its modules and parameters; disjoint, together the whole model."""
    names: dict[str, list[str]] = {part: [] for part in NAMES}
    owners = _owners(model, decoder_only=decoder_only)
    seen: set[int] = set()
    for part in NAMES:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if owners[name] == part and id(parameter) not in seen:
                names[part].append(name)
        seen |= {id(model.get_parameter(name)) for name in names[part]}
    return {part: minimal_paths(model, held) for part, held in names.items() if held}


def towers(model: Any) -> tuple[str, ...]:
    """Paths of modules that read images or sounds, in a model that also reads texts."""
    return _submodels(model)[0]


def _owners(model: Any, *, decoder_only: bool) -> dict[str, str]:
    """Name of a tensor -> its part, for all names of every tensor."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    tower_paths, text_paths = _submodels(model)
    modalities = getattr(model, "input_modalities", None) or ()
    reads_both = {"image", "text"} <= ({modalities} if isinstance(modalities, str) else set(modalities))
    if not (tower_paths or hasattr(model.config, "vision_config") or reads_both):
        both = bool(model.config.is_encoder_decoder)
        decodes = decoder_only or (model.can_generate() and not both)
        return {name: _part_of(name, model, decodes=decodes, both=both) for name in names}
    of_text = {name for name in names if _is_inside(name, text_paths)} or _tensors_of_text(model, names)
    both = any(_encodes(name.split(".")) for name in of_text) and any(_decodes(name.split(".")) for name in of_text)
    owners = {}
    for name in names:
        if _is_inside(name, tower_paths):
            owners[name] = ENCODER
        elif name in of_text:
            owners[name] = _part_of(name, model, decodes=not both, both=both)
        else:
            owners[name] = HEAD if _is_head(name.split("."), model) else CONNECTOR
    return owners


def _submodels(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of towers and of text models, by their configurations; none inside another."""
    from transformers import PreTrainedModel

    text_classes = {type(config) for config in _text_configs(model.config)}
    # Some towers have no configuration: the library's encoders of images and sounds know them.
    kinds = ("image", "video", "audio") if hasattr(model.config, "vision_config") else ()
    encoders = [model.get_encoder(modality=kind) for kind in kinds]
    named = [each for each in encoders if isinstance(each, nn.Module) and not isinstance(each, PreTrainedModel)]
    tower_paths = [path for path, module in model.named_modules() if any(module is tower for tower in named)]
    texts: list[str] = []
    for path, module in model.named_modules():
        if not path or not isinstance(module, PreTrainedModel) or type(module.config) is type(model.config):
            continue
        if _is_inside(path, [*tower_paths, *texts]):
            continue
        if type(module.config) in text_classes:
            texts.append(path)
        elif _is_tower(module, model.config):
            tower_paths.append(path)
    return tuple(tower_paths), tuple(texts)


def _is_tower(module: Any, config: Any) -> bool:
    keys = [key for key in config.sub_configs if type(getattr(config, key, None)) is type(module.config)]
    reads = [getattr(module, name) for name in ("forward", "encode") if hasattr(module, name)]
    first = {next(iter(inspect.signature(function).parameters), "") for function in reads}
    return not first.isdisjoint(_RAW) or any(_TOWER.fullmatch(key) for key in keys)


def _text_configs(config: Any) -> Iterator[Any]:
    """Configurations of text models below this one, at any depth."""
    for side in ({}, {"decoder": True}, {"encoder": True}):
        try:
            text = config.get_text_config(**side)
        except ValueError:  # there are several
            continue
        if type(text) is not type(config):
            yield text
    for key in config.sub_configs:
        inner = getattr(config, key, None)
        if hasattr(inner, "get_text_config"):
            yield from _text_configs(inner)


def _tensors_of_text(model: Any, names: Sequence[str]) -> set[str]:
    """Names of the tensors that a text without images uses, for a text model that is no module; all names where the
    model refuses a text alone."""
    ids = torch.ones(1, 2, dtype=torch.long, device="meta")
    try:
        called = modules_called(model, input_ids=ids).modules
    except Exception:  # what a model raises without an image differs from model to model
        return set(names)
    paths = {path for path, module in model.named_modules(remove_duplicate=False) if module in called}
    return {name for name in names if name.rpartition(".")[0] in paths}


def _is_inside(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _part_of(name: str, model: Any, *, decodes: bool, both: bool) -> str:
    """Part of a tensor; ``decodes``: all blocks decode; ``both``: some encode, some decode."""
    steps = name.split(".")
    if _is_head(steps, model):
        return HEAD
    if any(map(_EMBEDDING.fullmatch, _before_blocks(steps))) or _is_word_embedding(name, model):
        return EMBEDDINGS
    if decodes or both:
        return ENCODER if both and not decodes and _encodes(steps) and not _decodes(steps) else DECODER
    return ENCODER


def _is_word_embedding(name: str, model: Any) -> bool:
    # By identity, as names differ: ``w`` in CTRL.
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return False
    return isinstance(embedding, nn.Embedding) and model.get_submodule(name.rpartition(".")[0]) is embedding


def _encodes(steps: Sequence[str]) -> bool:
    return any(step == "encoder" or "text_encoder" in step for step in steps)


def _decodes(steps: Sequence[str]) -> bool:
    return any(map(_DECODER.fullmatch, steps))


def _is_head(steps: list[str], model: Any) -> bool:
    prefix = model.base_model_prefix
    if prefix and hasattr(model, prefix):
        if steps[0] != prefix:
            return True
        steps = steps[1:]
    return any(map(_HEAD.fullmatch, _before_blocks(steps)))


def _before_blocks(steps: list[str]) -> list[str]:
    """Steps of a name before the number of a block."""
    return steps[: next((i for i, step in enumerate(steps) if step.isdigit()), len(steps))]

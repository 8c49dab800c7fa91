"""Weights of OFA: files, digest and loading. Imports torch inside functions only: lists of cells ask for the digest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import WeightsError
from bench.models.common.files import CONFIG, digest_of, read_json, refuse_quantised_config, refuse_quantised_tensors
from bench.models.ofa.settings import Weights

if TYPE_CHECKING:
    from torch import nn

    from bench.models.common.weights import State

TENSORS, WORDS = "model.safetensors", "words.txt"
_BPE = ("encoder.json", "vocab.bpe", "dict.txt")
_EMBEDDING = "embed_tokens.weight"
# Names of the token embedding in a released checkpoint.
_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")
# Buffers that follow from the sizes, and heads for other tasks.
_DERIVED = re.compile(
    r"(encoder|decoder)\.(version|token_rp_bucket|image_rp_bucket)|decoder\.image_position_idx|classification_heads\..*"
)


def digest(weights: Weights | None) -> str | None:
    """SHA-256 (hex) over the model's files; null without weights."""
    return digest_of([tensors(weights), *tokenizer(weights)]) if weights else None


def tensors(weights: Weights) -> Path:
    """The file of tensors. Raises WeightsError if it is missing or quantised."""
    if weights.kind == "checkpoint":
        if not weights.path.is_file():
            raise WeightsError(f"no weights at {weights.path}: give a released .pt, or weights: null for random ones")
        return weights.path
    path = weights.path / TENSORS
    if not path.is_file():
        raise WeightsError(f"no {TENSORS} in {weights.path}: give a folder that train.save_model wrote")
    refuse_quantised_config(read_json(weights.path / CONFIG) or {}, weights.path / CONFIG)
    refuse_quantised_tensors([path])
    return path


def tokenizer(weights: Weights) -> list[Path]:
    """Files of the weights' tokenizer. Raises WeightsError if one is missing."""
    folder = weights.path
    if weights.kind == "checkpoint":
        folder = weights.tokenizer or weights.path.parent
    elif (folder / WORDS).is_file():
        return [folder / WORDS]
    if lacking := [name for name in _BPE if not (folder / name).is_file()]:
        raise WeightsError(
            f"no {', '.join(lacking)} in {folder}: the tokenizer of the weights, utils/BPE in OFA's and BiomedGPT's "
            "repositories; put it there, or set model.weights.tokenizer to its folder"
        )
    return [folder / name for name in _BPE]


def load(module: nn.Module, path: Path) -> None:
    """Copy the tensors of a file into the network. Raises WeightsError with the tensors that do not fit."""
    from bench.models.common.weights import load_strict, merge_tied, read

    state = {n: t for n, t in read(path, wrappers=("model",)).items() if not _DERIVED.fullmatch(n)}
    state = merge_tied(state, dict.fromkeys(_ALIASES, _EMBEDDING), path)
    load_strict(plain(module), state, path, "Set model.preset and model.network to its own")


def plain(module: nn.Module) -> State:
    """The network's tensors under the released names, the embedding once, as ``embed_tokens.weight``."""
    return {_EMBEDDING if name in _ALIASES else name: tensor for name, tensor in module.state_dict().items()}

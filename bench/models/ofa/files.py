"""Where OFA weights and their tokenizer lie, and their digest. No torch in here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import WeightsError
from bench.models.common.files import digest_of, read_json, refuse_quantised_config, refuse_quantised_tensors

if TYPE_CHECKING:
    from bench.models import ofa

TENSORS, CONFIG, WORDS = "model.safetensors", "config.json", "words.txt"
BPE = ("encoder.json", "vocab.bpe", "dict.txt")
"""GPT-2's byte-pair encoding, and fairseq's order of its tokens."""


def digest(weights: ofa.Weights) -> str:
    """SHA-256 (hex) over the names and contents of the files that make the model."""
    return digest_of([tensors(weights), *tokenizer(weights)])


def tensors(weights: ofa.Weights) -> Path:
    """The file of tensors. Raises WeightsError if it is not there."""
    if weights.kind == "checkpoint":
        if not weights.path.is_file():
            raise WeightsError(f"no weights at {weights.path}: give a released .pt, or weights: null for random ones")
        return weights.path
    path = weights.path / TENSORS
    if not path.is_file():
        raise WeightsError(f"no {TENSORS} in {weights.path}: give a folder that train.save_model wrote")
    refuse_quantised_config(read_json(weights.path / CONFIG), weights.path / CONFIG)
    refuse_quantised_tensors([path])
    return path


def tokenizer(weights: ofa.Weights) -> list[Path]:
    """The files of the tokenizer that belongs to the weights. Raises WeightsError if they are not there."""
    folder = weights.path
    if weights.kind == "checkpoint":
        folder = weights.tokenizer or weights.path.parent
    elif (folder / WORDS).is_file():
        return [folder / WORDS]
    found = [folder / name for name in BPE if (folder / name).is_file()]
    if len(found) < len(BPE):
        lacking = ", ".join(name for name in BPE if folder / name not in found)
        raise WeightsError(
            f"no {lacking} in {folder}: the tokenizer of the weights, utils/BPE in OFA's and BiomedGPT's repositories; "
            "put it there, or set model.weights.tokenizer to its folder"
        )
    return found

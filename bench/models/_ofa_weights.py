"""Loading OFA weights: safely and strictly. A missing, unexpected or misshapen tensor is an error that names it."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import WeightsError

State = dict[str, torch.Tensor]
EMBEDDING = "embed_tokens.weight"
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight", EMBEDDING)
"""Names of the token embedding: three in a released checkpoint, and ours."""
_NOT_OURS = re.compile(
    r"(encoder|decoder)\.(version|token_rp_bucket|image_rp_bucket)|decoder\.image_position_idx|classification_heads\..*"
)
"""Buffers that follow from the sizes, and heads for other tasks."""
_SAFE = (argparse.Namespace, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.int64)), np._core.multiarray.scalar)  # type: ignore[attr-defined]
"""What fairseq keeps beside the tensors: its arguments, and numbers of its log. All plain data."""


def read(path: Path) -> State:
    """The tensors of a ``.safetensors`` file or of a ``.pt`` of fairseq. Unpickles nothing but plain data."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    try:
        with torch.serialization.safe_globals(list(_SAFE)):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{path} cannot be loaded safely: {str(error).splitlines()[0]}. If you trust its source, load it once "
            f"yourself and save only the tensors: torch.save({{'model': checkpoint['model']}}, 'clean.pt')"
        ) from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} is no checkpoint of fairseq: it has no tensors under 'model'")
    return state


def load(module: torch.nn.Module, state: State, source: str) -> None:
    """Copy ``state`` into the network, every tensor accounted for. Raises WeightsError that names what does not fit."""
    own = plain(module)
    state = _one_embedding({n: t for n, t in state.items() if not _NOT_OURS.fullmatch(n)}, source)
    problems = [
        *_named("missing", own.keys() - state.keys()),
        *_named("unexpected", state.keys() - own.keys()),
        *_named(
            "of another shape",
            (name for name in own.keys() & state.keys() if own[name].shape != state[name].shape),
            lambda name: f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}",
        ),
    ]
    if problems:
        raise WeightsError(
            f"{source} does not fit the model: {'; '.join(problems)}. Set model.preset and model.network to its own"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def plain(module: torch.nn.Module) -> State:
    """The network's tensors under the released names, the embedding once, as ``embed_tokens.weight``."""
    return {EMBEDDING if name in _TIED else name: tensor for name, tensor in module.state_dict().items()}


def _one_embedding(state: State, source: str) -> State:
    copies = [name for name in _TIED if name in state]
    if any(not torch.equal(state[copies[0]], state[name]) for name in copies[1:]):
        raise WeightsError(f"{source}: {', '.join(copies)} are one tensor in this model, but differ in the file")
    rest = {name: tensor for name, tensor in state.items() if name not in copies}
    return rest | ({EMBEDDING: state[copies[0]]} if copies else {})


def _named(what: str, names: Iterable[str], describe: Callable[[str], str] = str) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f", and {len(listed) - 10} more" if len(listed) > 10 else ""
    return [f"{len(listed)} {what}: {', '.join(describe(name) for name in listed[:10])}{more}"]

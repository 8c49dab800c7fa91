"""Loading OFA weights: safely and strictly. A missing, unexpected or misshapen tensor is an error that names it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from bench.errors import WeightsError
from bench.models.common import weights
from bench.models.common.weights import State

EMBEDDING = "embed_tokens.weight"
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight", EMBEDDING)
"""Names of the token embedding: three in a released checkpoint, and ours."""
_NOT_OURS = re.compile(
    r"(encoder|decoder)\.(version|token_rp_bucket|image_rp_bucket)|decoder\.image_position_idx|classification_heads\..*"
)
"""Buffers that follow from the sizes, and heads for other tasks."""


def read(path: Path) -> State:
    """The tensors of a ``.safetensors`` file or of a ``.pt`` of fairseq. Raises WeightsError."""
    return weights.read(path, wrappers=("model",))


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

"""A cell's adapted model on the meta device, built by the code that builds it for a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from bench import registry
from bench.cell import Cell
from bench.errors import EstimateError
from bench.estimate.tracker import WEIGHTS, Tracker
from bench.protocols import BenchModel
from bench.worker.adapt import Adapted, adapt


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """The adapted model and what its methods did, by part."""

    model: BenchModel
    adapters: dict[str, Adapted]


def build(cell: Cell, texts: Sequence[str], tracker: Tracker, precision_of_weights: torch.dtype) -> Built:
    """Allocate in the order of a run: the plain model in fp32, adapters, then the conversion of all weights.

    Methods that compute from real weights cannot be put on meta tensors: their model is built on the CPU with random
    weights and moved, in no particular order. What goes wrong there is raised as it is.
    """
    plugin = registry.load("models", cell.model.family)
    model: BenchModel = plugin.build(cell.model, texts=texts, device="meta")
    tracker.register(in_order(model.module), WEIGHTS)
    try:
        with tracker:
            adapters = adapt(model, plugin.PARTS, cell.parts, cell.methods)
            model.module.to("meta", precision_of_weights)
    except (NotImplementedError, EstimateError):
        model = plugin.build(cell.model.model_copy(update={"weights": None}), texts=texts, device="cpu")
        adapters = adapt(model, plugin.PARTS, cell.parts, cell.methods)
        move_to_meta(model.module, precision_of_weights)
    tracker.register(in_order(model.module), WEIGHTS)
    return Built(model=model, adapters=adapters)


def in_order(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers as ``module.to`` visits them: children first."""
    for child in module.children():
        yield from in_order(child)
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)


def move_to_meta(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """As ``module.to("meta", dtype)``, but a tensor of several names stays one tensor."""
    moved: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                known = moved.get(id(parameter))
                if known is None:
                    target = dtype if parameter.is_floating_point() else parameter.dtype
                    data = torch.empty_like(parameter, device="meta", dtype=target)
                    known = moved[id(parameter)] = torch.nn.Parameter(data, parameter.requires_grad)
                owner._parameters[name] = known  # type: ignore[assignment]
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                target = dtype if buffer.is_floating_point() else buffer.dtype
                owner._buffers[name] = torch.empty_like(buffer, device="meta", dtype=target)

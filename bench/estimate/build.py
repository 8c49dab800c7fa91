"""A cell's adapted model on the meta device, built by the code that builds it for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bench import registry
from bench.errors import EstimateError
from bench.estimate.tracker import WEIGHTS, Tracker
from bench.plugins.contracts import BenchModel, TaskFacts
from bench.spec.cell import Cell
from bench.training.adapt import AppliedMethod, adapt

_STD = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """The adapted model and what its methods did, by part."""

    model: BenchModel
    adapters: dict[str, AppliedMethod]


def build(cell: Cell, texts: Sequence[str], tracker: Tracker, weights_dtype: torch.dtype, task: TaskFacts) -> Built:
    """Allocate in the order of a run: the plain model in fp32, adapters, then the conversion of all weights.

    Methods that compute from real weights cannot be put on meta tensors: their model is built on the CPU with random
    weights and moved, in no particular order. What goes wrong there is raised as it is.
    """
    plugin = registry.load("models", cell.model.family)
    model: BenchModel = plugin.build(cell.model, texts=texts, device="meta", task=task)
    tracker.register(in_order(model.module), WEIGHTS)
    try:
        with tracker:
            adapters = adapt(model, model.part_facts, cell.parts, cell.methods)
            model.module.to("meta", weights_dtype)
    except (NotImplementedError, EstimateError):
        model = plugin.build(cell.model, texts=texts, device="meta", task=task)
        replace_tensors(model.module, _random)
        adapters = adapt(model, model.part_facts, cell.parts, cell.methods)
        replace_tensors(model.module, partial(_on_meta, dtype=weights_dtype))
    tracker.register(in_order(model.module), WEIGHTS)
    return Built(model=model, adapters=adapters)


def in_order(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers as ``module.to`` visits them: children first."""
    for child in module.children():
        yield from in_order(child)
    yield from (p for p in module._parameters.values() if p is not None)
    yield from (b for b in module._buffers.values() if b is not None)


def replace_tensors(module: torch.nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put ``make(tensor)`` in the place of every parameter and buffer; a tensor of several names stays one tensor."""
    made: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = torch.nn.Parameter(make(parameter), parameter.requires_grad)
                owner._parameters[name] = made[id(parameter)]  # type: ignore[assignment]
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = make(buffer)


def _random(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, as new weights are; methods that decompose weights need finite ones."""
    made = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return made.normal_(std=_STD) if tensor.is_floating_point() else made


def _on_meta(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    target = dtype if tensor.is_floating_point() else tensor.dtype
    return torch.empty_like(tensor, device="meta", dtype=target)

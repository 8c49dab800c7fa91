"""Freeze, train or adapt each part of a model as the cell says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench import registry
from bench.errors import BenchError, TokenError
from bench.plugins.contracts import BenchModel, PartFacts
from bench.plugins.settings import MethodSettings
from bench.spec.cell import Cell
from bench.training import placement
from bench.training.data import task_of
from bench.training.failure import memory_error
from bench.training.optimizer import ParamGroup
from bench.training.tied import check_shared, shared_tensors

if TYPE_CHECKING:
    from peft import PeftModel

FROZEN, TRAINED = "F", "T"
"""The two actions that are not the name of a method."""
_REMEDY = "correct its settings, or choose another method for this part (--methods lists them all)"
_NO_TEXTS = ("?",)
"""Stands for the data's when only the shape of a model matters: no method asks how large the vocabulary is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedMethod:
    """What a method did to a part."""

    names: frozenset[str]
    """Tensors that it trains, by name in the part as it now is."""
    peft: PeftModel | None
    """The library's wrapper with the adapter; null if the method trains tensors of the part itself."""
    note: str
    """What the method chose, for the reader of a log or an estimate."""


def adapt(
    model: BenchModel,
    facts: Mapping[str, PartFacts],
    parts: Mapping[str, str],
    methods: Mapping[str, MethodSettings],
) -> dict[str, AppliedMethod]:
    """Apply ``parts`` (part -> action) to ``model`` in place; works on the meta device, too.

    Returns what was done to every part that got a method. Parameters outside all parts stay frozen. Raises BenchError
    if a method cannot be put on its part; what only meta tensors are in the way of is raised as it is.
    """
    model.module.requires_grad_(False)
    adapted: dict[str, AppliedMethod] = {}
    for part, action in parts.items():
        if action == TRAINED:
            model.part(part).requires_grad_(True)
        elif action != FROZEN:
            try:
                adapted[part] = apply_method(model, facts[part], methods[action])
            except BenchError as error:
                raise type(error)(f"method {action} cannot be put on part {part}: {error}") from error
            except Exception as error:
                if needs_values(error) or memory_error(error) is not None:
                    raise
                told = f"{type(error).__name__}: {str(error).rstrip('. ')}"
                raise BenchError(f"method {action} cannot be put on part {part}: {told}; {_REMEDY}") from error
            if not adapted[part].names:
                raise BenchError(f"method {action} trains nothing on part {part}; see what it needs with --methods")
    return adapted


def check_on_meta(cell: Cell) -> None:
    """Freeze and adapt the model of a cell on the meta device, which costs neither weights nor memory.

    Raises BenchError for a model that there is not, a part that it lacks, and, naming method and part, a method that
    cannot be put on its part. Of a method that computes from the weights, or names tokens, nothing is learnt here.
    """
    plugin = registry.load("models", cell.model.family)
    model: BenchModel = plugin.build(cell.model, texts=_NO_TEXTS, device="meta", task=task_of(cell).facts)
    try:
        adapt(model, model.part_facts, cell.parts, cell.methods)
    except TokenError:
        pass  # the vocabulary may come from texts that are not read yet: the model itself is asked
    except RuntimeError as error:
        if not needs_values(error):
            raise


def method_groups(
    model: BenchModel, parts: Mapping[str, str], methods: Mapping[str, MethodSettings]
) -> list[ParamGroup]:
    """The trained tensors of each part whose method has a learning rate or a weight decay of its own."""
    return [
        ParamGroup(parameters=[p for p in model.part(part).parameters() if p.requires_grad], training=training)
        for part, action in parts.items()
        if action in methods and (training := methods[action].train) is not None
    ]


def needs_values(error: Exception) -> bool:
    """Whether a method failed on the meta device only because it computes from the weights."""
    return isinstance(error, RuntimeError) and "meta" in str(error)


def apply_method(model: BenchModel, part: PartFacts, method: MethodSettings) -> AppliedMethod:
    plugin, plain = registry.load("methods", method.type), model.part(part.name)
    if hasattr(plugin, "select"):
        names = plugin.select(method, part, plain)
        for name in names:
            plain.get_parameter(name).requires_grad_(True)
        return AppliedMethod(names=frozenset(names), peft=None, note=placement.of_tensors(plain, names))
    from bench.patches.peft import get_peft_model  # takes seconds to import, and full training needs none of it

    before, weights = set(plain.parameters()), placement.weights(plain)
    shared = shared_tensors(model.module)
    source = plugin.source(method, part, plain) if hasattr(plugin, "source") else ""
    wrapper: PeftModel = get_peft_model(plain, plugin.config(method, part, plain))
    model.replace_part(part.name, wrapper)
    if finish := getattr(plugin, "finish", None):
        finish(method, wrapper)
    _freeze_constants(wrapper)
    check_shared(model.module, shared)
    trained = {name for name, p in wrapper.named_parameters() if p.requires_grad and p not in before}
    return AppliedMethod(names=frozenset(trained), peft=wrapper, note=placement.of_adapter(wrapper, weights, source))


def _freeze_constants(wrapper: PeftModel) -> None:
    """Numbers that peft keeps beside an adapter, such as AdaLoRA's rank, come out trained when it moves them to the
    device of the layer; on the CPU, where it moves nothing, they stay frozen.
    """
    for layer in wrapper.modules():
        for name in getattr(layer, "other_param_names", ()):
            constants = getattr(layer, name, None)
            if isinstance(constants, torch.nn.ParameterDict):
                constants.requires_grad_(False)

"""Freeze, train or adapt each part of a model as its cell says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench import registry
from bench.errors import BenchError, TokenError
from bench.plugins.contracts import BenchModel, PartFacts, Task
from bench.plugins.settings import MethodSettings
from bench.spec.cell import Cell
from bench.training.data import LoadedData, task_of
from bench.training.device import Precision
from bench.training.failure import memory_error
from bench.training.optimizer import ParamGroup

if TYPE_CHECKING:
    from peft import PeftModel

FROZEN, TRAINED = "F", "T"
"""The two actions that are not names of methods."""
_REMEDY = "correct its settings, or choose another method for this part (--methods lists them all)"
_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class AppliedMethod:
    """A method applied to a part."""

    names: frozenset[str]
    """Tensors that it trains, by name in the adapted part."""
    peft: PeftModel | None
    """peft's wrapper with the adapter; null if the method trains tensors of the part itself."""
    note: str
    """Choices of the method, for a log or an estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Adapted model of a cell on its device, with data and task."""

    cell: Cell
    data: LoadedData
    task: Task
    model: BenchModel
    adapters: Mapping[str, AppliedMethod]
    """Part -> the method on it; parts that are frozen or trained as a whole have none."""
    precision: Precision


def adapt(
    model: BenchModel,
    facts: Mapping[str, PartFacts],
    parts: Mapping[str, str],
    methods: Mapping[str, MethodSettings],
) -> dict[str, AppliedMethod]:
    """Apply ``parts`` (part -> action) to ``model`` in place, also on the meta device; all other parameters freeze.

    Returns the method on every part that has one. Raises BenchError for a method that cannot be put on its part; an
    error for want of memory, or of values on the meta device, is raised as it is.
    """
    model.module.requires_grad_(False)
    adapters: dict[str, AppliedMethod] = {}
    for part, action in parts.items():
        if action == TRAINED:
            model.part(part).requires_grad_(True)
        elif action != FROZEN:
            try:
                adapters[part] = apply_method(model, facts[part], methods[action])
            except BenchError as error:
                raise type(error)(f"method {action} cannot be put on part {part}: {error}") from error
            except Exception as error:
                if needs_values(error) or memory_error(error) is not None:
                    raise
                reason = f"{type(error).__name__}: {str(error).rstrip('. ')}"
                raise BenchError(f"method {action} cannot be put on part {part}: {reason}; {_REMEDY}") from error
            if not adapters[part].names:
                raise BenchError(f"method {action} trains nothing on part {part}; see what it needs with --methods")
    return adapters


def apply_method(model: BenchModel, part: PartFacts, method: MethodSettings) -> AppliedMethod:
    """Put a method on a part. Raises BenchError, or any error of peft, if it does not fit."""
    plugin: Any = registry.load("methods", method.type)  # an AdapterPlugin or a SelectivePlugin
    plain = model.part(part.name)
    if hasattr(plugin, "select"):
        names = plugin.select(method, part, plain)
        for name in names:
            plain.get_parameter(name).requires_grad_(True)
        return AppliedMethod(names=frozenset(names), peft=None, note=_selection_note(plain, names))
    from bench.patches.peft import get_peft_model  # takes seconds to import, and full training does not need it

    before, sizes, tied = set(plain.parameters()), _weight_sizes(plain), tied_tensors(model.module)
    source = plugin.source(method, part, plain) if hasattr(plugin, "source") else ""
    wrapper: PeftModel = get_peft_model(plain, plugin.config(method, part, plain))
    model.replace_part(part.name, wrapper)
    if finish := getattr(plugin, "finish", None):
        finish(method, wrapper)
    # peft moves numbers such as AdaLoRA's rank to the layer's device, which makes them trainable, except on the CPU.
    for layer in wrapper.modules():
        for name in getattr(layer, "other_param_names", ()):
            if isinstance(constants := getattr(layer, name, None), torch.nn.ParameterDict):
                constants.requires_grad_(False)
    check_tied(model.module, tied)
    trained = {name for name, p in wrapper.named_parameters() if p.requires_grad and p not in before}
    return AppliedMethod(names=frozenset(trained), peft=wrapper, note=_adapter_note(wrapper, sizes, source))


def needs_values(error: Exception) -> bool:
    """Whether a method failed only because it computes from weights, which the meta device does not have."""
    return isinstance(error, RuntimeError) and "meta" in str(error)


def check_on_meta(cell: Cell) -> None:
    """Adapt the model of a cell on the meta device, which costs neither weights nor memory.

    Raises BenchError for a model or part that does not exist, and for a method that cannot be put on its part. Methods
    that compute from weights or name tokens are left to the run.
    """
    plugin = registry.load("models", cell.model.family)
    # Any text will do, as no method depends on the size of the vocabulary.
    model: BenchModel = plugin.build(cell.model, texts=("?",), device="meta", task=task_of(cell).facts)
    try:
        adapt(model, model.part_facts, cell.parts, cell.methods)
    except TokenError:
        pass  # the token may be in the texts, which are not read yet
    except RuntimeError as error:
        if not needs_values(error):
            raise


def method_groups(
    model: BenchModel, parts: Mapping[str, str], methods: Mapping[str, MethodSettings]
) -> list[ParamGroup]:
    """Trained tensors of each part whose method has its own learning rate or weight decay."""
    return [
        ParamGroup(parameters=[p for p in model.part(part).parameters() if p.requires_grad], training=training)
        for part, action in parts.items()
        if action in methods and (training := methods[action].train) is not None
    ]


def tied_tensors(module: torch.nn.Module) -> dict[int, list[str]]:
    """Id -> names of each parameter that has several names in ``module``."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {key: several for key, several in names.items() if len(several) > 1}


def check_tied(module: torch.nn.Module, tied: Mapping[int, list[str]]) -> None:
    """Raise BenchError if ``modules_to_save`` copied a tied tensor (of ``tied_tensors``) for some of its layers only.

    The copy would be trained, while the other layers, such as a tied output layer, keep the old values.
    """
    from peft.utils import ModulesToSaveWrapper

    everywhere = module.named_modules(remove_duplicate=False)
    wrappers = {path: layer for path, layer in everywhere if isinstance(layer, ModulesToSaveWrapper)}
    copies: dict[int, set[int]] = {}
    for layer in wrappers.values():
        for name, tensor in layer.original_module.named_parameters():
            if id(tensor) in tied:
                saved = [dict(copy.named_parameters()).get(name) for copy in layer.modules_to_save.values()]
                copies.setdefault(id(tensor), set()).update(map(id, saved))
    for name, tensor in module.named_parameters(remove_duplicate=False):
        if id(tensor) not in copies:
            continue
        kept = not any(name.startswith(f"{path}.") for path in wrappers)
        if kept or len(copies[id(tensor)]) > 1:
            raise BenchError(
                f"modules_to_save would untie what the model shares, {' and '.join(tied[id(tensor)])}: one copy "
                "would be trained, the rest keep the old weights; set ensure_weight_tying: true or, where that does "
                "not help, take the module out of modules_to_save and train its part (T)"
            )


def _weight_sizes(part: torch.nn.Module) -> dict[str, int]:
    """Module -> elements of its weight matrix or kernel; ``""`` -> elements of all such tensors of the part."""
    sizes = {
        name: module.weight.numel()
        for name, module in part.named_modules()
        if name and isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.ndim > 1
    }
    return sizes | {"": sum(p.numel() for p in part.parameters() if p.ndim > 1)}


def _adapter_note(wrapper: PeftModel, sizes: Mapping[str, int], source: str) -> str:
    """``adapters on 24 modules (fc1, fc2, qkv), 98 % of the part's weights; target_modules: peft's for llama``."""
    config = wrapper.active_peft_config
    if config.is_prompt_learning:
        shape = (f"{name} {getattr(config, name)}" for name in ("num_layers", "token_dim", "num_attention_heads"))
        return f"{config.num_virtual_tokens} virtual tokens; {', '.join(shape)}"
    names = [
        *getattr(wrapper.base_model, "targeted_module_names", ()),
        *getattr(wrapper.base_model, "targeted_parameter_names", ()),
    ]
    if not names:
        return f"{config.peft_type.value} as the library places it"
    covered = sum(sizes.get(name, 0) for name in names)
    share = f", {_percent(covered, sizes[''])} of the part's weights" if covered else ""
    targets = f"; target_modules: {source}" if source else ""
    kinds = _shortened([name.rpartition(".")[2] for name in names])
    return f"adapters on {_count(names, 'module')} ({kinds}){share}{targets}"


def _selection_note(part: torch.nn.Module, names: Collection[str]) -> str:
    """``trains 12 tensors, 7.9 % of the part's parameters: blocks.11``."""
    share = _percent(sum(part.get_parameter(name).numel() for name in names), sum(p.numel() for p in part.parameters()))
    paths = _covering_modules(part, set(names), "")
    if len(paths) > _SHOWN:
        paths = [re.sub(r"\d+", "*", path) for path in paths]
    return f"trains {_count(names, 'tensor')}, {share} of the part's parameters: {_shortened(paths)}"


def _covering_modules(module: torch.nn.Module, names: set[str], prefix: str) -> list[str]:
    """The largest modules all of whose tensors are among ``names``, and the other tensors of ``names``."""
    tensors = [f"{prefix}{name}" for name, _ in module.named_parameters()]
    if tensors and names.issuperset(tensors):
        return [prefix.removesuffix(".") or "all of it"]
    direct = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
    covering = [name for name in direct if name in names]
    for name, child in module.named_children():
        covering += _covering_modules(child, names, f"{prefix}{name}.")
    return covering


def _shortened(words: Collection[str]) -> str:
    distinct = list(dict.fromkeys(words))
    more = [f"{len(distinct) - _SHOWN} more"] if len(distinct) > _SHOWN else []
    return ", ".join([*distinct[:_SHOWN], *more])


def _count(names: Collection[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) != 1)}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"

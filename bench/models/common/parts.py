"""Parts of any torch module, declared by patterns of module paths, and adapters on them.

peft sees a part of several modules as a ``PartView``, with the same modules under the same names. An adapter replaces
layers inside their parents, so the model's own forward pass runs it.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import SpecError, WeightsError
from bench.layer_kinds import is_norm
from bench.registry import did_you_mean

Paths = dict[str, tuple[str, ...]]
"""Part -> dotted paths of its modules and parameters, none below another; ``""`` is the whole model."""

# Customary names in timm and transformers.
_KEYS_AND_VALUES = ("qkv", "kv", "k", "v", "k_proj", "v_proj", "key", "value", "query_key_value", "c_attn", "in_proj")
_FEEDFORWARD = ("fc2", "lin2", "wo", "w2", "w3", "down_proj", "dense_4h_to_h")


def match_parts(module: nn.Module, patterns: Mapping[str, str | Sequence[str]]) -> Paths:
    """Paths in ``module`` that match the patterns of each part; modules without parameters are left out.

    A pattern is the path of a module or parameter, each step with the wildcards of ``fnmatch``: ``blocks.*``,
    ``blocks.[0-5]``, ``cls_token``; ``""`` is the whole module.
    Raises SpecError, with near names, for a pattern without a match, and for parts that overlap.
    """
    modules = module.named_modules(remove_duplicate=False)
    names = [name for name, inner in modules if any(True for _ in inner.parameters())]
    names += [name for name, _ in module.named_parameters(remove_duplicate=False)]
    parts: Paths = {}
    for part, given in patterns.items():
        several = [given] if isinstance(given, str) else given
        paths = dict.fromkeys(path for pattern in several for path in _match_pattern(pattern, names, part))
        parts[part] = tuple(path for path in paths if not any(_is_below(path, other) for other in paths))
    for (part, paths_of_part), (other, paths_of_other) in combinations(parts.items(), 2):
        for one, two in product(paths_of_part, paths_of_other):
            if one == two or _is_below(one, two) or _is_below(two, one):
                deeper = max(one, two, key=len) or "the whole model"
                raise SpecError(f"parts {part!r} and {other!r} overlap: both hold {deeper}; narrow a pattern")
    return parts


def _match_pattern(pattern: str, names: Sequence[str], part: str) -> list[str]:
    steps = pattern.split(".")

    def matches(name: str) -> bool:
        levels = name.split(".")
        return len(levels) == len(steps) and all(map(fnmatchcase, levels, steps))

    if matched := [name for name in names if matches(name)]:
        return matched
    candidates = dict.fromkeys(name for name in names if name and name.count(".") <= pattern.count("."))
    hint = did_you_mean(pattern, list(candidates))
    raise SpecError(f"part {part!r}: {pattern!r} names no module or parameter of the model{hint}")


def _is_below(path: str, other: str) -> bool:
    return path != other and (other == "" or path.startswith(f"{other}."))


def minimal_paths(module: nn.Module, parameters: Collection[str], prefix: str = "") -> tuple[str, ...]:
    """Fewest paths that hold exactly these parameters (names as in ``module.named_parameters``)."""
    names = [f"{prefix}{name}" for name, _ in module.named_parameters(remove_duplicate=False)]
    if names and all(name in parameters for name in names):
        return (prefix.removesuffix("."),)
    paths = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False) if f"{prefix}{name}" in parameters]
    for name, child in module.named_children():
        paths += minimal_paths(child, parameters, f"{prefix}{name}.")
    return tuple(paths)


class PartView(nn.Module):
    """Modules and parameters of a model under their names; never called."""

    def __init__(self, root: nn.Module, paths: Iterable[str]) -> None:
        super().__init__()
        self._entries: list[tuple[nn.Module, str, nn.Module]] = []
        """Parent in the view, name, parent in the model."""
        for path in paths:
            for name in [*root._modules, *root._parameters] if path == "" else [path]:
                self._add(root, name)

    def _add(self, owner: nn.Module, path: str) -> None:
        here: nn.Module = self
        *steps, leaf = path.split(".")
        for step in steps:
            owner = owner.get_submodule(step)
            if step not in here._modules:  # a list of blocks stays one, so that methods find it by its type
                is_list = isinstance(owner, nn.ModuleList | nn.Sequential)
                here.add_module(step, nn.ModuleList() if is_list else nn.Module())
            here = here.get_submodule(step)
        if leaf in owner._modules:
            here.add_module(leaf, owner._modules[leaf])
        else:
            here.register_parameter(leaf, owner._parameters[leaf])
        self._entries.append((here, leaf, owner))

    def __getattr__(self, name: str) -> Any:
        """Explain an AttributeError: some methods ask a model for its configuration or its layers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            remedy = 'a method that asks for it goes on a whole model, the part "" of `model.parts`'
            raise AttributeError(f"this part of a model has no {name!r}; {remedy}") from None

    def write_back(self) -> None:
        """Put the view's modules into the model, replaced ones among them."""
        for here, leaf, owner in self._entries:
            if leaf in here._modules:
                setattr(owner, leaf, here._modules[leaf])

    def _apply(self, fn: Any, recurse: bool = True) -> PartView:
        """Move to another device or dtype, and keep the model's parameters."""
        # A move to meta makes new parameters, in the view other ones than in the model.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for here, leaf, owner in self._entries:
            if leaf in here._parameters:
                here._parameters[leaf] = owner._parameters[leaf]
        return self


class ModelWithAdapters(nn.Module):
    """A model, and beside it the wrappers of adapters: some hold tensors that their layers share."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module("model", model)
        self.add_module("adapters", nn.Module())

    def train(self, mode: bool = True) -> ModelWithAdapters:
        """Keep the statistics of frozen batch norms."""
        super().train(mode)
        freeze_batch_norms(self)
        return self


def freeze_batch_norms(module: nn.Module) -> None:
    """Put frozen batch norms into evaluation mode."""
    # Their statistics would change in training although the part is frozen, and no adapter stores them.
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not (layer.weight is not None and layer.weight.requires_grad):
            layer.eval()


def add_unused(loss: torch.Tensor, unused: Iterable[torch.Tensor]) -> torch.Tensor:
    """``loss``, with a gradient of zero for tensors that it does not depend on."""
    return sum((0.0 * tensor.sum() for tensor in unused), loss)


def refuse_adapters(module: nn.Module) -> None:
    """Raise WeightsError for a model with adapters of peft: it has no plain layout to save."""
    if any(type(inner).__module__.partition(".")[0] == "peft" for inner in module.modules()):
        raise WeightsError("a model with adapters cannot be saved as a whole; train its parts (T) or save the adapter")


class PartitionedModel:
    """Parts of a built model: the half of ``BenchModel`` that is the same for every module."""

    def __init__(self, model: nn.Module, paths: Paths, in_place: Collection[str] = ()) -> None:
        """``in_place``: parts of one path that peft wraps inside the model, as virtual tokens need it."""
        assert all(len(paths[part]) == 1 for part in in_place), "only a part of one module can be wrapped in place"
        self.module: nn.Module = ModelWithAdapters(model)
        self._paths = paths
        self._in_place = in_place

    @property
    def model(self) -> Any:
        """The model to call, adapted or not."""
        return self.module.get_submodule("model")

    def part(self, name: str) -> nn.Module:
        """The part, adapted or not: a view, or the module itself for a part in place."""
        adapters = self.module.get_submodule("adapters")
        if name in self._in_place:
            return self.module.get_submodule(self._path_in_place(name))
        if _attribute(name) in adapters._modules:
            return adapters.get_submodule(_attribute(name))
        return PartView(self.model, self._paths[name])

    def replace_part(self, name: str, adapted: nn.Module) -> None:
        """Let the model run the adapted (peft) module."""
        if name in self._in_place:
            parent, _, leaf = self._path_in_place(name).rpartition(".")
            setattr(self.module.get_submodule(parent), leaf, adapted)
            return
        view = next(inner for inner in adapted.modules() if isinstance(inner, PartView))
        view.write_back()
        self.module.get_submodule("adapters").add_module(_attribute(name), adapted)

    def _path_in_place(self, name: str) -> str:
        (path,) = self._paths[name]
        return f"model.{path}".removesuffix(".")


def _attribute(part: str) -> str:
    """Attribute name for a part; no module has it already."""
    return f"part_{part.replace('.', '_')}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """Modules whose ``forward`` runs when a model is called."""

    modules: frozenset[nn.Module]
    """Without layers whose weight another module uses directly: an adapter on them would do nothing."""
    classifier: frozenset[nn.Module]
    """The classifier's layers: called after ``forward_features``, where the model has it."""


def modules_called(model: nn.Module, *args: Any, **kwargs: Any) -> Calls:
    """Call a copy of ``model`` on the meta device, where the arguments are. Raises what ``model`` raises.

    Takes no memory and leaves the model untouched.
    """
    shells: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        shells[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    # The tensors in the memo keep modules that share others shared.
    copied: Any = copy.deepcopy(model, shells).eval()
    origins = dict(zip(copied.modules(), model.modules(), strict=True))
    order: dict[nn.Module, None] = {}
    features: set[nn.Module] = set()
    for inner in copied.modules():
        inner.register_forward_pre_hook(lambda caller, _: order.setdefault(origins[caller]))
    if (forward_features := getattr(copied, "forward_features", None)) is not None:

        def noting_features(*given: Any, **options: Any) -> Any:
            before = len(order)
            result = forward_features(*given, **options)
            features.update(list(order)[before:])
            return result

        copied.forward_features = noting_features
    with torch.no_grad():
        copied(*args, **kwargs)
    classifier = frozenset(order) - features - {model} if features else frozenset()
    return Calls(modules=frozenset(order), classifier=classifier)


def architecture(model: nn.Module, paths: Sequence[str]) -> str | None:
    """``model_type`` of the smallest module that holds all paths and has a configuration; null without one."""
    steps = [path.split(".") if path else [] for path in paths]
    levels = enumerate(zip(*steps, strict=False))
    shared = next((i for i, names in levels if len(set(names)) > 1), min(map(len, steps)))
    for end in range(shared, -1, -1):
        owner: Any = model
        for step in steps[0][:end]:
            owner = getattr(owner, step)
        model_type: str | None = getattr(getattr(owner, "config", None), "model_type", None)
        if model_type:
            return model_type
    return None


def default_targets(
    part: nn.Module,
    called: Collection[nn.Module] | None = None,
    outputs: Collection[nn.Module] = (),
    classifier: Collection[nn.Module] = (),
) -> dict[str, list[str]]:
    """``PartFacts.targets`` of a part, from its layers.

    LoRA and its kin: all linear layers (Dettmers et al. 2023, QLoRA) where these hold at least half of the adaptable
    weights, else ungrouped convolutions, too; ``outputs`` and ``classifier`` only in a part without other layers. IA3:
    keys, values and the second feed-forward layer (Liu et al. 2022) by customary names; a fused ``qkv`` as a whole.
    LN tuning: all normalisation layers, where no other layer has their names. ``called``: layers to choose from (see
    ``modules_called``).
    """
    layers = {
        name: layer
        for name, layer in part.named_modules()
        if name and (called is None or layer in called) and _takes_adapters(layer)
    }
    inner = {name: layer for name, layer in layers.items() if layer not in outputs}
    trunk = {name: layer for name, layer in inner.items() if layer not in classifier}
    chosen = _linear_if_enough(trunk) or _linear_if_enough(inner) or set(layers)
    feedforward = {name for name in chosen if name.rpartition(".")[2] in _FEEDFORWARD}
    rescaled = {name for name in chosen if name.rpartition(".")[2] in _KEYS_AND_VALUES} | feedforward
    targets: dict[str, list[str]] = {}
    if chosen:
        targets = {"lora": _shortest_endings(chosen, part), "ia3": _shortest_endings(rescaled or chosen, part)}
        targets["ia3.feedforward_modules"] = _shortest_endings(feedforward, part)
    if heads := [name for name, layer in part.named_modules() if layer in outputs]:
        targets["head"] = heads
    norms = {name for name, layer in part.named_modules() if is_norm(layer)}
    if norms and not norms & {end for name, _ in part.named_modules() if name not in norms for end in _endings(name)}:
        targets["ln_tuning"] = _shortest_endings(norms, part)
    return targets


def _takes_adapters(layer: nn.Module) -> bool:
    # torch's MultiheadAttention uses this layer's weight without a call.
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False
    if isinstance(layer, nn.Conv2d):
        dilated = any(size > 1 and step > 1 for size, step in zip(layer.kernel_size, layer.dilation, strict=True))
        return layer.groups == 1 and (not dilated or _peft_knows_dilation())
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


@cache
def _peft_knows_dilation() -> bool:
    """Whether the installed peft builds adapters of convolutions with their dilation."""
    spec = importlib.util.find_spec("peft")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [Path(folder, "tuners", "lora", "layer.py") for folder in folders]
    return any("dilation" in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _linear_if_enough(layers: Mapping[str, nn.Module]) -> set[str]:
    """Names of linear layers if they hold half of the weights, else of all layers."""
    sizes = {name: sum(p.numel() for p in layer.parameters() if p.ndim > 1) for name, layer in layers.items()}
    linear = {name for name, layer in layers.items() if not isinstance(layer, nn.Conv2d)}
    return linear if 2 * sum(sizes[name] for name in linear) >= sum(sizes.values()) else set(layers)


def _shortest_endings(names: Collection[str], part: nn.Module) -> list[str]:
    """``names`` as target modules, each by its shortest ending that matches no other: ``qkv``, ``attn.proj``."""
    others = {end for name, _ in part.named_modules() if name not in names for end in _endings(name)}
    return sorted({next((end for end in _endings(name) if end not in others), name) for name in names})


def _endings(name: str) -> list[str]:
    """``c``, ``b.c``, ``a.b.c``."""
    steps = name.split(".")
    return [".".join(steps[start:]) for start in reversed(range(len(steps)))]

"""What a configuration of the library names must be in the part: the library passes over a name that means nothing,
and the method would then be another one than the spec says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import SpecError, TokenError
from bench.methods.common.targets import ALL_LINEAR, matching, module_names, refuse_unknown
from bench.plugins.contracts import PartFacts

if TYPE_CHECKING:
    import torch

Fields = Mapping[str, Any]

_LAYERS, _PATTERN = "layers_to_transform", "layers_pattern"
SHAPE = ("num_layers", "token_dim", "num_attention_heads", "num_transformer_submodules")
"""Of a model that takes virtual tokens: the library computes what is not set."""
_UNSUPPORTED = {
    "use_qalora": "is for layers quantised by GPTQ, which are not supported",
    "alora_invocation_tokens": "switches the adapter on behind these tokens, which are put into no prompt here",
    "target_svd_config": "is accepted by the library and used by none of its code",
}
"""Field -> why it would have no effect."""
_ONLY_WITH = {
    "qalora_group_size": ("use_qalora", True),
    "prompt_tuning_init_text": ("prompt_tuning_init", "TEXT"),
    "tokenizer_kwargs": ("prompt_tuning_init", "TEXT"),
}
"""Field -> the field and value without which the library does not read it."""
_UNUSED = {"ADALORA": ("r", "rank_pattern", "alpha_pattern")}
"""Type -> fields that it inherits and reads nowhere in training."""
_OVER_A_FILE = ", or set it to null over an adapter_config"
_BLOCKS = ("target_modules_bd_a", "target_modules_bd_b")
"""Fields of ``use_bdlora``: parts of names."""


def resolve(
    peft_type: str, fields: dict[str, Any], given: Collection[str], part: PartFacts, module: torch.nn.Module
) -> dict[str, Any]:
    """``fields`` with the layers of ``layers_to_transform`` as ``target_modules``; ``given``: those of the spec, others
    being defaults.

    Raises SpecError, with the nearest names, for a name, an index or a token that the part does not have, and for a
    field that has no effect here.
    """
    _refuse_idle(peft_type, fields)
    _check_tokens(fields, module)
    _check_parameters(fields.get("target_parameters"), part, module)
    targets = fields.get("target_modules")
    if not targets:
        _refuse_without_targets(fields)
        return fields
    candidates = _targeted(targets, module)
    if "target_modules" in given and not _is_all_linear(targets):
        _check(_entries(targets), candidates, module_names(module), f"module of part {part.name!r} (target_modules)")
    kept = _without_excluded(fields.get("exclude_modules"), candidates)
    if fields.get(_LAYERS) in (None, []):
        if fields.get(_PATTERN):
            raise SpecError(f"{_PATTERN} says where {_LAYERS} counts, which is not set: set it, or remove {_PATTERN}")
    else:
        kept = _in_layers(fields, kept, module)
        fields = {**fields, "target_modules": kept, _LAYERS: None, _PATTERN: None}
    _check_patterns({name: value for name, value in fields.items() if name in given}, kept)
    return fields


def check_shape(fields: Fields, expected: Fields) -> None:
    """Raise SpecError if the shape of a model that ``fields`` give is not the part's."""
    for name in SHAPE:
        if fields.get(name) is not None and fields[name] != expected[name]:
            raise SpecError(
                f"{name} is {fields[name]}, and this part's is {expected[name]}: the value is another model's; "
                f"set {name}: null, so that the part's own is taken"
            )


def _refuse_idle(peft_type: str, fields: Fields) -> None:
    for name, reason in _UNSUPPORTED.items():
        if fields.get(name):
            raise SpecError(f"{name} {reason}; remove it{_OVER_A_FILE}")
    for name, (other, value) in _ONLY_WITH.items():
        if fields.get(name) is not None and fields.get(other) != value:
            raise SpecError(f"{name} has no effect unless {other} is {value}; set that, or remove {name}")
    for name in _UNUSED.get(peft_type, ()):
        if fields.get(name):
            raise SpecError(f"{peft_type} does not use {name}; remove it{_OVER_A_FILE}")


def _refuse_without_targets(fields: Fields) -> None:
    """Fields that narrow or detail ``target_modules`` mean nothing without any."""
    for name in ("exclude_modules", _LAYERS, _PATTERN, *_patterns(fields)):
        if fields.get(name) not in (None, [], {}):
            raise SpecError(f"{name} says something about target_modules, and there are none; set them")


def _targeted(targets: Sequence[str] | str, module: torch.nn.Module) -> list[str]:
    """Names of the modules that the library would put an adapter on."""
    if _is_all_linear(targets):
        return [n for n, own in module.named_modules() if n and _is_linear(own) and own is not _output(module)]
    return matching(targets, module_names(module))


def _is_all_linear(targets: object) -> bool:
    return isinstance(targets, str) and targets.lower() == ALL_LINEAR


def _is_linear(layer: torch.nn.Module) -> bool:
    from torch import nn

    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def _output(module: torch.nn.Module) -> torch.nn.Module | None:
    get: Callable[[], torch.nn.Module | None] | None = getattr(module, "get_output_embeddings", None)
    return get() if get is not None else None


def _entries(given: Sequence[str] | str | None) -> list[Sequence[str] | str]:
    """Each name of a list by itself; a text is one regular expression."""
    return [given] if isinstance(given, str) else [[name] for name in given or ()]


def _check(entries: Sequence[Sequence[str] | str], candidates: Sequence[str], known: Sequence[str], what: str) -> None:
    """Raise SpecError, with the nearest of the ``known`` names, for an entry that means none of the candidates."""
    for entry in entries:
        if not matching(entry, candidates):
            refuse_unknown("".join(entry), known, what)


def _without_excluded(excluded: Sequence[str] | str | None, candidates: list[str]) -> list[str]:
    left = candidates
    _check(_entries(excluded), candidates, candidates, "target module (exclude_modules)")
    for entry in _entries(excluded):
        left = [name for name in left if name not in matching(entry, candidates)]
    if not left:
        raise SpecError("exclude_modules leaves nothing of target_modules; narrow it")
    return left


def _in_layers(fields: Fields, candidates: list[str], module: torch.nn.Module) -> list[str]:
    given = fields[_LAYERS]
    wanted = {given} if isinstance(given, int) else set(given)
    pattern = fields.get(_PATTERN) or ()
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    places = {name: place for name in candidates if (place := _place(name, patterns, module)) is not None}
    lists = list(dict.fromkeys(stack for stack, _ in places.values()))
    if not lists:
        known = sorted({stack.rpartition(".")[2] for name in candidates for stack, _ in _numbered(name)})
        hint = f"set {_PATTERN} to one of {', '.join(known)}" if known else f"remove {_LAYERS}"
        named = f" {_PATTERN} {', '.join(patterns)}" if patterns else ""
        raise SpecError(f"no target module is in a numbered layer of{named or ' this part'}; {hint}")
    alike = {re.sub(r"\d+", "*", stack) for stack in lists}
    if len(alike) < len(lists):
        outer = _outer(lists)
        raise SpecError(
            f"{_LAYERS} is ambiguous: layers are counted anew in each of {', '.join(lists)}; "
            + (f"{_PATTERN}: {outer} counts those instead; " if outer else "")
            + "or name the modules by target_modules, e.g. as a regular expression"
        )
    there = {index for _, index in places.values()}
    if strangers := sorted(wanted - there):
        held = ", ".join(f"{stack}: {_range({i for s, i in places.values() if s == stack})}" for stack in lists)
        raise SpecError(f"{_LAYERS}: no target module is in layer {', '.join(map(str, strangers))} (there are {held})")
    return [name for name, (_, index) in places.items() if index in wanted]


def _place(name: str, patterns: list[str], module: torch.nn.Module) -> tuple[str, int] | None:
    """The list of layers that the module is counted in, and its number there; null if it is in none.

    Raises SpecError if two lists could be meant, one inside the other.
    """
    numbered = _numbered(name)
    if patterns:
        return next((p for p in numbered if any(re.fullmatch(rf"(.*\.)?{own}", p[0]) for own in patterns)), None)
    inner = [stack for stack, _ in numbered[1:] if _is_stack(module.get_submodule(stack))]
    if inner:
        outer = numbered[0][0].rpartition(".")[2]
        raise SpecError(
            f"{_LAYERS} is ambiguous: it may count {numbered[0][0]} or, inside each, {inner[0].rpartition('.')[2]}; "
            f"{_PATTERN}: {outer} counts the first; or name the modules by target_modules"
        )
    return numbered[0] if numbered else None


def _numbered(name: str) -> list[tuple[str, int]]:
    """``[("layers", 0), ("layers.0.blocks", 1)]`` of ``layers.0.blocks.1.attn``."""
    steps = name.split(".")
    return [(".".join(steps[:i]), int(step)) for i, step in enumerate(steps) if i and step.isdigit()]


def _is_stack(module: torch.nn.Module) -> bool:
    kinds = [type(child) for child in module.children()]
    return len(kinds) > 1 and len(set(kinds)) == 1


def _outer(lists: Sequence[str]) -> str | None:
    """The step that numbers these lists themselves: ``layers`` of ``layers.0.blocks`` and ``layers.1.blocks``."""
    numbered = _numbered(f"{lists[0]}.")
    return numbered[0][0].rpartition(".")[2] if numbered else None


def _range(indices: set[int]) -> str:
    low, high = min(indices), max(indices)
    return f"{low} to {high}" if len(indices) == high - low + 1 > 1 else ", ".join(map(str, sorted(indices)))


def _patterns(fields: Fields) -> list[str]:
    return [name for name, own in fields.items() if name.endswith("_pattern") and isinstance(own, dict)]


def _check_patterns(fields: Fields, kept: list[str]) -> None:
    """Names of layers with a rank, a scale or the like of their own, and further lists of target modules."""
    for field in _patterns(fields):
        earlier: list[str] = []
        for key in fields[field]:
            means = [name for name in kept if re.match(rf"(.*\.)?({key})$", name)]
            if not means:
                refuse_unknown(key, kept, f"target module ({field})")
            if all(any(re.match(rf"(.*\.)?({other})$", name) for other in earlier) for name in means):
                raise SpecError(f"{key!r} of {field} has no effect: what stands before it means the same modules")
            earlier.append(key)
    feedforward = _entries(fields.get("feedforward_modules"))
    _check(feedforward, kept, kept, "target module (feedforward_modules)")
    blocks = fields.get("use_bdlora")
    for field in _BLOCKS:
        for name in blocks.get(field) or () if isinstance(blocks, dict) else ():
            if not any(name in own for own in kept):
                refuse_unknown(name, kept, f"target module (use_bdlora.{field})")


def _check_parameters(names: Sequence[str] | None, part: PartFacts, module: torch.nn.Module) -> None:
    known = [name for name, _ in module.named_parameters()]
    _check(_entries(names), known, known, f"parameter of part {part.name!r} (target_parameters)")


def _check_tokens(fields: Fields, module: torch.nn.Module) -> None:
    """Rows of an embedding that are trained, and tokens that a prompt begins as."""
    for field in ("token_indices", "trainable_token_indices", "cpt_token_ids"):
        given = fields.get(field)
        for name, tokens in (given if isinstance(given, dict) else {"": given or ()}).items():
            rows = _rows(name, module, field)
            wrong = [token for token in tokens if rows is not None and not 0 <= token < rows]
            if wrong:
                told = f"the embedding has rows 0 to {(rows or 0) - 1}"
                raise TokenError(f"{field}: there is no token {', '.join(map(str, wrong))}; {told}")


def _rows(name: str, module: torch.nn.Module, field: str) -> int | None:
    """Rows of the embedding of that name, or of the model's own; null where it cannot be told."""
    from torch import nn

    embeddings = {n: own for n, own in module.named_modules() if isinstance(own, nn.Embedding)}
    if name:
        meant = matching([name], embeddings) or refuse_unknown(name, embeddings, f"embedding ({field})")
        return int(embeddings[meant[0]].weight.shape[0])
    get = getattr(module, "get_input_embeddings", None)
    own = get() if get is not None else None
    return int(own.weight.shape[0]) if isinstance(own, nn.Embedding) else None

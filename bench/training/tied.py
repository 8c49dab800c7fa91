"""Tensors that a model shares between layers stay shared under an adapter."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from bench.errors import BenchError


def shared_tensors(module: nn.Module) -> dict[int, list[str]]:
    """Id of each tensor that has several names in ``module`` -> these names."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {key: several for key, several in names.items() if len(several) > 1}


def check_shared(module: nn.Module, shared: Mapping[int, list[str]]) -> None:
    """Every copy that ``modules_to_save`` made of a shared tensor is the one that all its layers use.

    ``shared``: as ``shared_tensors`` found before the adapter was put on. Raises BenchError with the names: one layer
    would be trained, and the others, such as a tied output layer, keep the old values.
    """
    from peft.utils import ModulesToSaveWrapper

    everywhere = module.named_modules(remove_duplicate=False)
    wrappers = {path: own for path, own in everywhere if isinstance(own, ModulesToSaveWrapper)}
    copies: dict[int, set[int]] = {}
    for own in wrappers.values():
        for name, tensor in own.original_module.named_parameters():
            if id(tensor) in shared:
                saved = [dict(copy.named_parameters()).get(name) for copy in own.modules_to_save.values()]
                copies.setdefault(id(tensor), set()).update(map(id, saved))
    for name, tensor in module.named_parameters(remove_duplicate=False):
        if id(tensor) not in copies:
            continue
        kept = not any(name.startswith(f"{path}.") for path in wrappers)
        if kept or len(copies[id(tensor)]) > 1:
            raise BenchError(
                f"modules_to_save would untie what the model shares, {' and '.join(shared[id(tensor)])}: one copy "
                "would be trained, the rest keep the old weights; set ensure_weight_tying: true or, where that does "
                "not help, take the module out of modules_to_save and train its part (T)"
            )

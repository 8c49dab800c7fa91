"""Parameter counts of the adapted model, and the tensors one must keep per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from bench.plugins.contracts import BenchModel
from bench.records.costs import Params, PartParams
from bench.training.adapt import FROZEN, AppliedMethod

if TYPE_CHECKING:
    from peft import PeftModel


_OF_TASKS = "prefix_task_"
"""How the tensors begin that multi-task prompts store beside the prompt: each task's factors of it."""
_ONE_PROMPT = ("PREFIX_TUNING", "CARTRIDGE")
"""Of these an encoder-decoder model has one prompt for both, of others one each."""


def count_params(model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]) -> Params:
    """Count on the adapted model; a tensor that several names share counts once. Works on the meta device.

    ``pct = 100 * trainable / total``, the total including the adapters: the definition under which all 23 rows of
    Tables 1-4 of the MILE paper come out (MICCAI 2024).
    """
    everything = list(model.module.parameters())
    trainable = sum(p.numel() for p in everything if p.requires_grad)
    total = sum(p.numel() for p in everything)
    seen: set[int] = set()
    by_part: dict[str, PartParams] = {}
    for part in parts:
        own = [p for p in model.part(part).parameters() if id(p) not in seen]
        seen |= {id(p) for p in own}
        by_part[part] = PartParams(
            trainable=sum(p.numel() for p in own if p.requires_grad), total=sum(p.numel() for p in own)
        )
    return Params(
        trainable=trainable,
        total=total,
        pct=100 * trainable / total,
        stored=sum(p.numel() for p in trained_tensors(model, parts, adapters).values())
        + sum(_stored_elements(adapter.peft) for adapter in adapters.values() if adapter.peft is not None),
        by_part=by_part,
    )


def trained_tensors(
    model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]
) -> dict[str, torch.Tensor]:
    """``part.name`` -> trained parameter of the model itself: of parts trained as a whole and of those of which a
    method selected some; tied tensors once. With it the running statistics of trained batch norms, which training
    moves: without them, what is stored would not predict the same.
    """
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for part, action in parts.items():
        if action == FROZEN or (part in adapters and adapters[part].peft is not None):
            continue
        for name, parameter in model.part(part).named_parameters():
            if (part not in adapters or name in adapters[part].names) and id(parameter) not in seen:
                seen.add(id(parameter))
                found[f"{part}.{name}"] = parameter
        found |= _statistics(model.part(part), part, seen)
    return found


def _statistics(module: torch.nn.Module, part: str, trained: set[int]) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{at}.{name}": statistic
        for at, layer in module.named_modules()
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and id(layer.weight) in trained
        for name in ("running_mean", "running_var")
        if (statistic := getattr(layer, name)) is not None
    }


def stored_tensors(
    model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]
) -> dict[str, torch.Tensor]:
    """What one must keep per task: adapters as peft saves them, and trained tensors of the model itself. Not on the
    meta device.
    """
    found = trained_tensors(model, parts, adapters)
    for part, adapter in adapters.items():
        if adapter.peft is not None:
            found |= {f"{part}.{name}": tensor for name, tensor in adapter_state(adapter.peft).items()}
    return found


def adapter_state(adapter: PeftModel) -> dict[str, torch.Tensor]:
    """What peft saves of an adapter; a tensor that several of its layers share once, under its first name."""
    from peft import get_peft_model_state_dict

    once: dict[tuple[object, ...], tuple[str, torch.Tensor]] = {}
    # "auto" would ask the Hub whether the vocabulary grew.
    for name, tensor in get_peft_model_state_dict(adapter, save_embedding_layers=False).items():
        where = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        once.setdefault(where, (name, tensor))
    return dict(once.values())


def _stored_elements(adapter: PeftModel) -> int:
    on_meta = next(adapter.parameters()).device.type == "meta"
    if not (on_meta and adapter.active_peft_config.is_prompt_learning):
        return sum(t.numel() for t in adapter_state(adapter).values())
    # peft stores the prompt itself, not the network that makes it, and copies it to the CPU, which meta tensors cannot.
    encoder, config = adapter.prompt_encoder[adapter.active_adapter], adapter.active_peft_config
    tokens = adapter.prompt_tokens[adapter.active_adapter]
    if config.peft_type in _ONE_PROMPT:
        tokens = tokens[: config.num_virtual_tokens]
    try:
        with torch.no_grad():
            prompt: torch.Tensor = encoder(tokens.unsqueeze(0).to("meta"))
    except (RuntimeError, TypeError):  # it asks for values of its tokens or for a task: it has an embedding of each
        prompt = encoder.get_parameter("embedding.weight")
    beside = {id(p) for p in adapter.parameters() if p.requires_grad} - {id(p) for p in encoder.parameters()}
    beside |= {id(p) for name, p in encoder.named_parameters() if name.startswith(_OF_TASKS)}
    return prompt.numel() + sum(p.numel() for p in adapter.parameters() if id(p) in beside)

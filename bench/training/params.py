"""Parameter counts of an adapted model, and the tensors stored per task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.plugins.contracts import BenchModel
from bench.records.costs import Params, PartParams
from bench.training.adapt import FROZEN, AppliedMethod

if TYPE_CHECKING:
    from peft import PeftModel

# For these, an encoder-decoder model has one prompt for both; for other types one for each.
_ONE_PROMPT = ("PREFIX_TUNING", "CARTRIDGE")


def count_params(model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]) -> Params:
    """Counts on the adapted model, also on the meta device; a tied tensor counts once, in the first part that has it.

    ``pct = 100 * trainable / total``, the total including the adapters: the definition under which all 23 rows of
    Tables 1-4 of the MILE paper come out (MICCAI 2024).
    """

    def count(parameters: list[torch.nn.Parameter]) -> PartParams:
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        return PartParams(trainable=trainable, total=sum(p.numel() for p in parameters))

    whole = count(list(model.module.parameters()))
    seen: set[int] = set()
    by_part: dict[str, PartParams] = {}
    for part in parts:
        parameters = [p for p in model.part(part).parameters() if id(p) not in seen]
        seen |= {id(p) for p in parameters}
        by_part[part] = count(parameters)
    stored = sum(p.numel() for p in trained_tensors(model, parts, adapters).values())
    return Params(
        trainable=whole.trainable,
        total=whole.total,
        pct=100 * whole.trainable / whole.total,
        stored=stored + sum(_stored_elements(a.peft) for a in adapters.values() if a.peft is not None),
        by_part=by_part,
    )


def trained_tensors(
    model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]
) -> dict[str, torch.Tensor]:
    """``part.name`` -> trained tensor of the model itself, tied tensors once: of parts trained as a whole, and those
    that a method selected. With them the running statistics of trained batch norms, which training moves.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for part, action in parts.items():
        if action == FROZEN or (part in adapters and adapters[part].peft is not None):
            continue
        module = model.part(part)
        for name, parameter in module.named_parameters():
            if (part not in adapters or name in adapters[part].names) and id(parameter) not in seen:
                seen.add(id(parameter))
                tensors[f"{part}.{name}"] = parameter
        for path, layer in module.named_modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and id(layer.weight) in seen:
                statistics = {"running_mean": layer.running_mean, "running_var": layer.running_var}
                tensors |= {f"{part}.{path}.{name}": t for name, t in statistics.items() if t is not None}
    return tensors


def stored_tensors(
    model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]
) -> dict[str, torch.Tensor]:
    """Tensors stored per task: adapters as peft saves them, and ``trained_tensors``. Not for the meta device."""
    tensors = trained_tensors(model, parts, adapters)
    for part, adapter in adapters.items():
        if adapter.peft is not None:
            tensors |= {f"{part}.{name}": tensor for name, tensor in adapter_state(adapter.peft).items()}
    return tensors


def adapter_state(adapter: PeftModel) -> dict[str, torch.Tensor]:
    """Tensors that peft saves of an adapter; a tensor shared by several layers once, under its first name."""
    from peft import get_peft_model_state_dict

    distinct: dict[tuple[object, ...], tuple[str, torch.Tensor]] = {}
    # save_embedding_layers="auto" would ask the Hub whether the vocabulary grew.
    for name, tensor in get_peft_model_state_dict(adapter, save_embedding_layers=False).items():
        where = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        distinct.setdefault(where, (name, tensor))
    return dict(distinct.values())


def _stored_elements(adapter: PeftModel) -> int:
    on_meta = next(adapter.parameters()).device.type == "meta"
    if not (on_meta and adapter.active_peft_config.is_prompt_learning):
        return sum(t.numel() for t in adapter_state(adapter).values())
    # peft stores the prompt, not the network that makes it, and copies it to the CPU, which meta tensors cannot.
    encoder, config = adapter.prompt_encoder[adapter.active_adapter], adapter.active_peft_config
    tokens = adapter.prompt_tokens[adapter.active_adapter]
    if config.peft_type in _ONE_PROMPT:
        tokens = tokens[: config.num_virtual_tokens]
    try:
        with torch.no_grad():
            prompt: torch.Tensor = encoder(tokens.unsqueeze(0).to("meta"))
    except (RuntimeError, TypeError):  # it needs values of its tokens or a task id: it has an embedding of each
        prompt = encoder.get_parameter("embedding.weight")
    beside = {id(p) for p in adapter.parameters() if p.requires_grad} - {id(p) for p in encoder.parameters()}
    # Multi-task prompts store each task's factors beside the prompt.
    beside |= {id(p) for name, p in encoder.named_parameters() if name.startswith("prefix_task_")}
    return prompt.numel() + sum(p.numel() for p in adapter.parameters() if id(p) in beside)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write a safetensors file; returns its size in bytes."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    return path.stat().st_size

"""Adapters that a peft run left: in a folder of ``save_pretrained``, and among the tensors of a whole checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import WeightsError
from bench.models.common.weights import State, read
from bench.models.miss import files

if TYPE_CHECKING:
    from transformers import BlipForQuestionAnswering

MODULES = {"vit": "vision_model", "jtm": "text_encoder", "dec": "text_decoder"}
"""Part -> its module's name in the library."""
_WRAPPED = re.compile(
    r"(visual_encoder|vision_model|text_encoder|text_decoder)\.(base_model\.(model\.)?|prompt_encoder\.)"
)
_PARTS = {"visual_encoder": "vit"} | {module: part for part, module in MODULES.items()}
_ADAPTER = re.compile(r"\.(lora_\w+|ia3_l|vera_\w+|hada_\w+|oft_\w+|prompt_encoder)\b")


def separate(state: State) -> tuple[State, dict[str, State]]:
    """The plain model's tensors under their plain names; and per part on which peft has put an adapter, the adapter's,
    under the names of ``save_pretrained``."""
    wrapped = {found[1] for name in state if (found := _WRAPPED.match(name))}
    plain: State = {}
    adapters: dict[str, State] = {_PARTS[module]: {} for module in wrapped}
    for name, tensor in state.items():
        module, _, rest = name.partition(".")
        if module not in wrapped:
            plain[name] = tensor
        elif _ADAPTER.search(name):
            adapters[_PARTS[module]][rest.replace(".default", "")] = tensor
        elif rest != "word_embeddings.weight":  # what peft's prompts hold beside the model: its own embedding
            bare = re.sub(r"^base_model\.(model\.)?", "", rest).replace(".base_layer.", ".")
            plain[f"{module}.{bare}"] = tensor
    return plain, adapters


def check_named(held: Mapping[str, State], folders: Mapping[str, Path], source: str) -> None:
    """Raise WeightsError for an adapter of the file whose folder is not named: its scale stands only there."""
    for part, tensors in held.items():
        if any("prompt_encoder." in name for name in tensors):
            raise WeightsError(
                f"{source} holds prompts (prefix tuning or P-Tuning v2) on part {part}, which change no weights; "
                "no other method could start from them; LoRA and IA3 can be started from"
            )
        if part not in folders:
            kinds = ", ".join(sorted({found[1] for name in tensors if (found := _ADAPTER.search(f".{name}."))}))
            raise WeightsError(
                f"{source} holds a peft adapter on part {part} ({len(tensors)} tensors: {kinds}), whose settings stand "
                "only in the folder that save_pretrained wrote beside it, as MILE_PEFT_text_decoder_checkpoint_129; "
                f"to start from both, set model.weights.adapter: {{{part}: FOLDER}}"
            )


def merge(model: BlipForQuestionAnswering, folders: Mapping[str, Path], held: Mapping[str, State]) -> None:
    """Add each part's adapter to its weights, as peft does it. Raises WeightsError for an adapter that does not fit the
    part, is no change of its weights, or is not the one that the checkpoint holds (``held``)."""
    for part, folder in folders.items():
        state = _read(folder)
        for name, tensor in held.get(part, {}).items():
            if name not in state or not torch.equal(state[name], tensor):
                raise WeightsError(
                    f"{folder}: {name} is not what the checkpoint holds; name the adapter of the same epoch"
                )
        setattr(model, MODULES[part], _merged(getattr(model, MODULES[part]), part, folder, state))


def _read(folder: Path) -> State:
    *_, tensors = files.adapter_files(folder)
    return read(tensors, wrappers=())


def _merged(module: torch.nn.Module, part: str, folder: Path, state: State) -> torch.nn.Module:
    try:
        return _merge_into(module, folder, state).requires_grad_(True)
    except Exception as error:  # the library raises errors of many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{folder} cannot be put on part {part}: {reason}") from error


def _merge_into(module: torch.nn.Module, folder: Path, state: State) -> torch.nn.Module:
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict

    from bench.patches.peft import get_peft_model

    config: Any = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        kind = json.loads((folder / files.ADAPTER_CONFIG).read_text(encoding="utf-8"))["peft_type"]
        raise WeightsError(f"{kind} changes no weights, so that no other method could start from it; LoRA and IA3 do")
    adapted: Any = get_peft_model(module, config)
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if wrong := sorted(own.keys() ^ state.keys()):
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(f"only one of both has {', '.join(wrong[:5])}{more}")
    set_peft_model_state_dict(adapted, state)
    merged: torch.nn.Module = adapted.merge_and_unload()
    return merged

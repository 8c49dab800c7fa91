"""Put what a run stored per task back onto an adapted model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.errors import WeightsError
from bench.plugins.contracts import BenchModel
from bench.training.adapt import AppliedMethod
from bench.training.params import adapter_state, trained_tensors

if TYPE_CHECKING:
    from peft import PeftModel


def load_adapter(
    model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod], file: Path
) -> None:
    """Load ``adapter.safetensors`` of a run (``train.save_adapter``) into the same model, adapted in the same way.

    For evaluation: a method that stores less than it trains (a prompt without the network that makes it) cannot be
    trained on from here. Raises WeightsError that names the tensors if the file is not of these parts and methods.
    """
    from safetensors.torch import load_file

    state = load_file(file)
    for part, adapter in adapters.items():
        if adapter.peft is not None:
            _restore(adapter.peft, part, {n: state.pop(n) for n in list(state) if n.startswith(f"{part}.")})
    own = trained_tensors(model, parts, adapters)
    _refuse(file, own.keys() - state.keys(), "lacks")
    _refuse(file, state.keys() - own.keys(), "holds tensors of no part that trains:")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def _restore(wrapper: PeftModel, part: str, stored: dict[str, torch.Tensor]) -> None:
    from peft import set_peft_model_state_dict

    config = wrapper.active_peft_config
    if config.is_prompt_learning:  # a prompt that is stored ready-made takes the place of the network that makes it
        config.inference_mode = True
        wrapper._setup_prompt_encoder(wrapper.active_adapter)
        wrapper.prompt_encoder.requires_grad_(False)
    wanted = {f"{part}.{name}" for name in adapter_state(wrapper)}
    _refuse(part, wanted - stored.keys(), "the file lacks")
    _refuse(part, stored.keys() - wanted, "the file holds tensors that its method does not have:")
    set_peft_model_state_dict(wrapper, {name.removeprefix(f"{part}."): tensor for name, tensor in stored.items()})


def _refuse(where: Path | str, names: set[str], what: str) -> None:
    if names:
        raise WeightsError(
            f"{where}: {what} {', '.join(sorted(names)[:5])}; load it into the model and methods it is of"
        )

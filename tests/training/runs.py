"""Runs without a spec, and the stored tensors of a run put back onto a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import load_file

from bench.plugins.contracts import GenerateOptions
from bench.training.adapt import AppliedMethod, Run
from bench.training.device import Precision, make_precision
from bench.training.params import adapter_state, trained_tensors

CPU = torch.device("cpu")
FP32 = make_precision("fp32", CPU)


def make_run(
    model: Any,
    task: Any,
    options: GenerateOptions,
    parts: Mapping[str, str],
    adapters: Mapping[str, AppliedMethod],
    precision: Precision = FP32,
) -> Run:
    """A run that can be audited: a cell of these parts and options, without data."""
    cell: Any = SimpleNamespace(parts=parts, evaluate=SimpleNamespace(options=lambda: options))
    return Run(cell=cell, data=cast(Any, None), task=task, model=model, adapters=adapters, precision=precision)


def load_stored(model: Any, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod], file: Path) -> None:
    """Load ``adapter.safetensors`` of a run into the same model, adapted in the same way, to predict with it."""
    from peft import set_peft_model_state_dict

    state = load_file(file)
    for part, adapter in adapters.items():
        if adapter.peft is None:
            continue
        config = adapter.peft.active_peft_config
        if config.is_prompt_learning:  # the stored prompt replaces the network that makes it
            config.inference_mode = True
            adapter.peft._setup_prompt_encoder(adapter.peft.active_adapter)
            adapter.peft.prompt_encoder.requires_grad_(False)
        stored = {name.removeprefix(f"{part}."): state.pop(name) for name in list(state) if name.startswith(f"{part}.")}
        assert stored.keys() == adapter_state(adapter.peft).keys()
        set_peft_model_state_dict(adapter.peft, stored)
    trained = trained_tensors(model, parts, adapters)
    assert state.keys() == trained.keys()
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.copy_(state[name])

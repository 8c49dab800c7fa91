"""The ViT's fused attention computes what the library's eager one does, adapters and all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import registry
from bench.models import miss
from bench.models.miss.model import MissModel
from bench.models.miss.patches import FusedAttention
from bench.training.adapt import adapt
from tests.models.conftest import TINY, make

TARGETS: dict[str, dict[str, Any]] = {
    "lora": {"targets": {"vit": ["qkv", "projection"]}, "lora_dropout": 0.0},
    "ia3": {"targets": {"vit": ["qkv", "projection"]}, "feedforward_modules": {"vit": []}},
}


def adapted(attention: str, method: str) -> MissModel:
    """The same weights for both kinds of attention; what is trained moved away from its no-op start."""
    model = make(miss.Settings.model_validate(TINY | {"attention": attention}))
    methods = {
        name: registry.load("methods", name).Settings.model_validate({"type": name, **TARGETS[name]})
        for name in TARGETS
    }
    torch.manual_seed(1)
    adapt(model, miss.PARTS, {"vit": method, "jtm": "F", "dec": "F"}, methods)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def results(model: MissModel, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    states = model.part("vit")(pixel_values=pixels).last_hidden_state
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    found = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
    return {"states": states.detach(), **found}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("method", ["T", "lora", "ia3"])
def test_states_and_gradients_are_those_of_eager_attention(
    batch: dict[str, torch.Tensor], method: str, checkpointed: bool
) -> None:
    fused = adapted("sdpa", method)
    assert sum(isinstance(m, FusedAttention) for m in fused.part("vit").modules()) == 2
    if checkpointed:
        fused.checkpoint_activations()
        fused.module.train()
    expected = results(adapted("eager", method), batch["pixel_values"])
    found = results(fused, batch["pixel_values"])
    assert len(found) > 4
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_drop_path_still_acts(batch: dict[str, torch.Tensor]) -> None:
    settings = {**TINY, "attention": "sdpa", "vision": {"hidden_size": 32, "num_hidden_layers": 2, "drop_path": 0.5}}
    vit = make(miss.Settings.model_validate(settings)).part("vit").train()
    with torch.no_grad():
        first, second = (vit(pixel_values=batch["pixel_values"])[0] for _ in range(2))
    assert not torch.equal(first, second)

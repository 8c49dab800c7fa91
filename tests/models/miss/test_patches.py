"""Fused attention, stochastic depth and gradient checkpointing leave unchanged what a model computes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from bench.models.miss.model import MissModel
from bench.models.miss.patches import FusedAttention
from tests.models.vqa import BEAMS, METHODS, MISS, batch_of, disturb, gradients, put, tiny_miss

FUSED_FIELDS: dict[str, dict[str, Any]] = {
    "T": {},
    "lora": {"targets": {"vit": ["qkv", "projection"]}, "lora_dropout": 0.0},
    "ia3": {"targets": {"vit": ["qkv", "projection"]}, "feedforward_modules": {"vit": []}},
}
ALL = {"vit": "T", "jtm": "T", "dec": "T"}
PATTERNS = [
    ALL,
    {"jtm": "lora"},
    *({"vit": vit, "jtm": m, "dec": m} for vit, m in itertools.product(("F", "T"), METHODS)),
    *({"vit": m} for m in METHODS[:2]),
    *({"jtm": j, "dec": d} for j, d in (("prefix", "F"), ("F", "prefix"), ("T", "prefix"))),
]
NOISE: dict[str, Any] = {
    "vision": MISS["vision"] | {"drop_path": 0.5},
    "text": {"hidden_size": 32, "dropout": 0.3},
}


def trained(parts: dict[str, str], *, checkpointed: bool = False, **changes: Any) -> MissModel:
    """A model in training, its adapters moved away from where they change nothing."""
    model = tiny_miss(**changes)
    fields = {"lora_dropout": 0.0} if "lora" in parts.values() else {}
    disturb(put(model, parts, **fields), 0.05)
    if checkpointed:
        model.checkpoint_activations()
    model.module.train()
    return model


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("method", FUSED_FIELDS)
def test_fused_attention_has_the_states_and_gradients_of_eager_attention(method: str, checkpointed: bool) -> None:
    results = []
    for attention in ("eager", "sdpa"):
        model = tiny_miss(attention=attention)
        disturb(put(model, {"vit": method}, **FUSED_FIELDS[method]), 0.2)
        if checkpointed and attention == "sdpa":
            model.checkpoint_activations()
            model.module.train()
        states = model.part("vit")(pixel_values=batch_of(model)["pixel_values"]).last_hidden_state
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        found = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
        results.append({"states": states.detach(), **found})
    assert sum(isinstance(m, FusedAttention) for m in model.part("vit").modules()) == 2
    assert results[0].keys() == results[1].keys()
    assert len(results[0]) > 4
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_drop_path_acts_in_training_only(attention: str) -> None:
    model = tiny_miss(attention=attention, vision=NOISE["vision"])
    pixels, vit = batch_of(model)["pixel_values"], model.part("vit")
    still = [vit(pixel_values=pixels)[0] for _ in range(2)]
    vit.train()
    moving = torch.stack([vit(pixel_values=pixels)[0] for _ in range(8)])
    assert torch.equal(*still)
    assert (moving - still[0]).abs().amax(dim=(1, 2, 3)).max() > 0


@pytest.mark.parametrize("parts", PATTERNS, ids=lambda parts: "-".join(map("".join, parts.items())))
def test_checkpointing_keeps_the_loss_and_every_gradient(parts: dict[str, str]) -> None:
    plain = gradients(trained(parts))
    checkpointed = trained(parts, checkpointed=True)
    for _ in range(2):  # a prefix that grew with each pass would show in the second
        found = gradients(checkpointed)
        assert found.keys() == plain.keys()
        assert len(found) > 1
        torch.testing.assert_close(found, plain)


def test_drop_path_and_dropout_fall_alike_in_both_passes() -> None:
    plain = gradients(trained(ALL, **NOISE))
    torch.testing.assert_close(gradients(trained(ALL, checkpointed=True, **NOISE)), plain)
    assert gradients(trained(ALL, **NOISE), seed=4)["loss"] != plain["loss"]


def test_frozen_layers_in_front_of_the_first_adapter_are_not_run_backward() -> None:
    model = trained({"dec": "lora"}, checkpointed=True)
    assert not model._question_states(batch_of(model)).requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_checkpointing_leaves_generation_alone(method: str) -> None:
    models = [trained({"jtm": method, "dec": method}, checkpointed=on) for on in (False, True)]
    for model in models:
        model.module.eval()
    assert models[0].generate(batch_of(models[0]), BEAMS) == models[1].generate(batch_of(models[1]), BEAMS)

"""With gradient checkpointing a model computes what it computes without, and keeps less."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from bench import registry
from bench.models import miss
from bench.models.miss.model import MissModel
from bench.plugins.contracts import GenerateOptions
from bench.plugins.settings import MethodSettings
from bench.training.adapt import adapt
from tests.models.conftest import TINY, make

Batch = dict[str, torch.Tensor]
METHODS = ("lora", "ia3", "prefix", "ptuning_v2")
PATTERNS = [
    {"vit": "T", "jtm": "T", "dec": "T"},
    {"vit": "F", "jtm": "lora", "dec": "F"},
    *({"vit": vit, "jtm": m, "dec": m} for vit, m in itertools.product(("F", "T"), METHODS)),
    *({"vit": m, "jtm": "F", "dec": "F"} for m in METHODS[:2]),
    *({"vit": "F", "jtm": j, "dec": d} for j, d in (("prefix", "F"), ("F", "prefix"), ("T", "prefix"))),
]


def trained(parts: dict[str, str], *, checkpointed: bool, **changes: Any) -> MissModel:
    """A model in training, its adapters moved away from where they change nothing."""
    model = make(miss.Settings.model_validate(TINY | changes))
    methods: dict[str, MethodSettings] = {}
    for name in set(parts.values()) - {"F", "T"}:
        methods[name] = registry.load("methods", name).Settings.model_validate({"type": name, **without_dropout(name)})
    torch.manual_seed(1)
    adapt(model, miss.PARTS, parts, methods)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    if checkpointed:
        model.checkpoint_activations()
    model.module.train()
    return model


def without_dropout(method: str) -> dict[str, float]:
    return {"lora_dropout": 0.0} if method == "lora" else {}


def gradients(model: MissModel, batch: Batch, seed: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    model.module.zero_grad()
    loss = model.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("parts", PATTERNS, ids=lambda parts: "-".join(parts.values()))
def test_the_loss_and_every_gradient_stay_the_same(batch: Batch, parts: dict[str, str]) -> None:
    plain = gradients(trained(parts, checkpointed=False), batch)
    checkpointed = trained(parts, checkpointed=True)
    for _ in range(2):  # a prefix that grew with each pass would show in the second
        found = gradients(checkpointed, batch)
        assert found.keys() == plain.keys()
        assert len(found) > 1
        torch.testing.assert_close(found, plain)


def test_drop_path_and_dropout_fall_alike_in_both_passes(batch: Batch) -> None:
    noise: dict[str, Any] = {
        "vision": {"hidden_size": 32, "num_hidden_layers": 2, "drop_path": 0.5},
        "text": {"hidden_size": 32, "dropout": 0.3},
    }
    parts = {"vit": "T", "jtm": "T", "dec": "T"}
    plain = gradients(trained(parts, checkpointed=False, **noise), batch)
    torch.testing.assert_close(gradients(trained(parts, checkpointed=True, **noise), batch), plain)
    other = gradients(trained(parts, checkpointed=False, **noise), batch, seed=4)
    assert other["loss"] != plain["loss"]


def test_frozen_layers_in_front_of_the_first_adapter_are_not_run_backward(batch: Batch) -> None:
    model = trained({"vit": "F", "jtm": "F", "dec": "lora"}, checkpointed=True)
    assert not model._question_states(batch).requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_generation_is_left_alone(batch: Batch, method: str) -> None:
    parts = {"vit": "F", "jtm": method, "dec": method}
    answers = []
    for checkpointed in (False, True):
        model = trained(parts, checkpointed=checkpointed)
        model.module.eval()
        answers.append(model.generate(batch, GenerateOptions(num_beams=3, max_new_tokens=5)))
    assert answers[0] == answers[1]


def test_less_is_kept_for_the_backward_pass(batch: Batch) -> None:
    def kept(*, checkpointed: bool) -> int:
        model = trained({"vit": "T", "jtm": "T", "dec": "T"}, checkpointed=checkpointed)
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        own = {p.untyped_storage().data_ptr() for p in model.module.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.loss(batch)
        assert loss.requires_grad
        return sum(size for address, size in sizes.items() if address not in own)

    assert kept(checkpointed=True) < 0.6 * kept(checkpointed=False)

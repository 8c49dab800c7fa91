"""Small MISS and OFA models, a batch of questions of different lengths, and adapters on their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench import registry
from bench.models import miss, ofa
from bench.models.miss.model import MissModel
from bench.models.ofa.model import OfaModel
from bench.plugins.contracts import GenerateOptions
from bench.training.adapt import adapt
from tests.contracts.model_cases import ANSWERS as TEXTS
from tests.contracts.model_cases import MISS, OFA, QUESTIONS, images

__all__ = ["MISS", "OFA", "QUESTIONS", "images"]
Batch = dict[str, torch.Tensor]
METHODS = ("lora", "ia3", "prefix", "ptuning_v2")
BEAMS = GenerateOptions(num_beams=3, max_new_tokens=5)
GREEDY = GenerateOptions(num_beams=1, max_new_tokens=5)
ANSWERS = TEXTS["text"]


def tiny_miss(**changes: Any) -> MissModel:
    """Random weights large enough that different inputs get different answers; no dropout."""
    torch.manual_seed(0)
    settings = miss.Settings.model_validate(MISS | changes)
    model = miss.build(settings, texts=[*QUESTIONS, *ANSWERS], device="cpu")
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.15)
    model.module.eval()
    return model


def micro_ofa(**changes: Any) -> OfaModel:
    """As ``tiny_miss``."""
    torch.manual_seed(0)
    model = ofa.build(ofa.Settings.model_validate(OFA | changes), texts=[*QUESTIONS, *ANSWERS], device="cpu")
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.25)
    model.module.eval()
    return model


def batch_of(model: MissModel | OfaModel) -> Batch:
    return model.collate(images(), QUESTIONS, ANSWERS)


def put(model: MissModel | OfaModel, parts: dict[str, str], **fields: Any) -> list[torch.nn.Parameter]:
    """Put methods, named by their types, on parts; the rest is frozen. Returns what is trained."""
    methods = {
        name: registry.load("methods", name).Settings.model_validate({"type": name} | fields)
        for name in set(parts.values()) - {"F", "T"}
    }
    torch.manual_seed(1)
    adapt(model, model.part_facts, dict.fromkeys(model.part_facts, "F") | parts, methods)
    model.module.eval()
    return [p for p in model.module.parameters() if p.requires_grad]


def disturb(parameters: Sequence[torch.nn.Parameter], amount: float) -> None:
    """Move what is trained away from its start, where adapters change nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=amount)


def gradients(model: MissModel | OfaModel, seed: int = 3) -> Batch:
    """The loss of a batch and every gradient, by name."""
    batch = batch_of(model)
    torch.manual_seed(seed)
    model.module.zero_grad()
    loss = model.loss(batch)
    torch.autograd.backward(loss)
    found = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def assert_trained(model: MissModel | OfaModel, trained: Sequence[torch.nn.Parameter]) -> None:
    torch.autograd.backward(model.loss(batch_of(model)))
    assert trained
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def answers_alone(model: MissModel | OfaModel) -> list[str]:
    """Each question answered in a batch of its own."""
    pairs = zip(images(), QUESTIONS, strict=True)
    return [model.generate(model.collate([image], [question], []), BEAMS)[0] for image, question in pairs]

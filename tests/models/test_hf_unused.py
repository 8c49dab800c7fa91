"""Tensors of an architecture that take no part in a task's loss: the audit names them and what trains the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.errors import AuditError
from bench.models import hf
from bench.plugins.contracts import TaskFacts
from bench.training.audit import check_gradients
from tests.models import hf_models as own
from tests.models.hf_models import LABEL, WRITE
from tests.models.hf_small import small

TEXTS = [f"w{i}x" for i in range(60)]
UNUSED = {"big_bird": LABEL, "xlnet": LABEL, "luke": LABEL, "led": WRITE}
"""A pooler, the vector of a hidden word, layers of entities, and attention of tokens that see all."""


def build(model_type: str, task: TaskFacts) -> Any:
    torch.manual_seed(0)
    settings = hf.Settings(family="hf", config=small(model_type))
    return hf.build(settings, texts=TEXTS, device="cpu", task=task)


def loss_of(model: Any, task: TaskFacts) -> Any:
    questions = [" ".join(TEXTS[:7]), " ".join(TEXTS[5:25])]
    if task.output == "text":
        return model.loss(model.collate([], questions, TEXTS[30:32]))
    return cross_entropy(model.logits(model.collate([], questions, [])), torch.tensor([0, 1]))


@pytest.mark.parametrize("model_type", UNUSED)
def test_the_remedy_that_the_audit_names_trains_the_rest(model_type: str) -> None:
    task = UNUSED[model_type]
    model = build(model_type, task)
    parts = dict.fromkeys(model.part_facts, "T")
    own.put(model, parts)
    loss_of(model, task).backward()
    with pytest.raises(AuditError, match="They take no part in this task's loss; train the rest: part") as refused:
        check_gradients(model)
    methods = {}
    for part, shown in re.findall(r"part (\w+): a method {type: subset, exclude: \[(.*?)\]}", str(refused.value)):
        parts[part] = f"{part}_rest"
        methods[parts[part]] = own.method("subset", exclude=[text.strip('"') for text in shown.split(", ")])
    again = build(model_type, task)
    own.put(again, parts, **methods)
    loss_of(again, task).backward()
    check_gradients(again)
    left = {name for name, p in again.module.named_parameters() if not p.requires_grad}
    assert left == {name for name, p in model.module.named_parameters() if p.grad is None}

"""AdaLoRA's orthogonality term is in the loss once, whether its model sees the loss or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bench.training.train import OrthogonalRegularizer

WEIGHT = 0.5


def config(**changes: Any) -> AdaLoraConfig:
    return AdaLoraConfig(init_r=4, target_r=2, total_step=10, orth_reg_weight=WEIGHT, **changes)


def term(module: nn.Module) -> torch.Tensor:
    """The mean distance of P'P and QQ' from the identity (Zhang et al. 2023, eq. 4, each by its Frobenius norm)."""
    found = [(name, p) for name, p in module.named_parameters() if "lora_A" in name or "lora_B" in name]
    squares = [p @ p.T if "lora_A" in name else p.T @ p for name, p in found]
    return torch.stack([(square - torch.eye(len(square))).norm() for square in squares]).mean()


@pytest.fixture
def part() -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = get_peft_model(
        nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)), config(target_modules=["0", "1"])
    )
    return module


def test_a_part_without_a_loss_has_the_term_added(part: nn.Module) -> None:
    penalty = OrthogonalRegularizer(nn.ModuleDict({"encoder": part, "head": nn.Linear(3, 2)}))
    for _ in range(2):
        penalty.begin()
        loss = part(torch.ones(2, 8)).square().mean()
        found = penalty.add_to(loss)
        torch.testing.assert_close(found, loss + WEIGHT * term(part))
    found.backward()  # type: ignore[no-untyped-call]
    factor = next(p for name, p in part.named_parameters() if "lora_B" in name)
    assert factor.grad is not None
    assert factor.grad.abs().sum() > 0


def test_what_the_library_has_added_is_not_added_again() -> None:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    plain = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes))
    model: Any = get_peft_model(plain, config(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    penalty, tokens = OrthogonalRegularizer(model), torch.arange(6)[None]
    penalty.begin()
    with_labels = model(input_ids=tokens, labels=tokens).loss
    assert penalty.add_to(with_labels) is with_labels
    penalty.begin()
    logits = model(input_ids=tokens).logits
    bare = nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    torch.testing.assert_close(penalty.add_to(bare), with_labels)


def test_other_methods_and_a_weight_of_zero_add_nothing(part: nn.Module) -> None:
    plain: Any = nn.Sequential(nn.Linear(8, 8))
    lora: nn.Module = get_peft_model(plain, LoraConfig(r=2, target_modules=["0"]))
    free: Any = part
    free.peft_config["default"].orth_reg_weight = 0.0
    for module in (lora, free):
        loss = torch.tensor(1.0)
        assert OrthogonalRegularizer(module).add_to(loss) is loss

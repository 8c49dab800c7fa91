"""``modules_to_save`` on tensors that a model shares: one copy for all of their layers, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.errors import BenchError
from tests.models.hf import models as own
from tests.models.hf.models import ANSWERS, CONFIGS, LABEL, QUESTIONS, WRITE

LLAMA = {"config": {"model_type": "llama", **CONFIGS["llama"], "tie_word_embeddings": True}}


def adapted(model: Any, **fields: Any) -> Any:
    own.put(model, {"all": "L"}, L=own.method("LORA", r=2, target_modules="all-linear", **fields))
    return model


def whole(model_type: str, task: Any = WRITE) -> Any:
    from bench.models import hf

    config = LLAMA["config"] if model_type == "llama" else own.settings(model_type).config
    settings = hf.Settings(family="hf", config=config, parts={"all": ""})
    return hf.build(settings, texts=own.TEXTS, device="cpu", task=task)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt2", {"modules_to_save": ["wte"]}),
        ("gpt2", {"modules_to_save": ["wte"], "ensure_weight_tying": True}),  # peft does not know GPT-2's name
        ("gpt2", {"modules_to_save": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens"]}),
        ("llama", {"modules_to_save": ["lm_head"]}),
        ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    ],
)
def test_a_copy_of_one_of_them_is_refused(model_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match=r"would untie what the model shares.*lm_head\.weight.*ensure_weight_tying"):
        adapted(whole(model_type), **fields)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_one_copy_for_all_trains_and_stays_one(module: str) -> None:
    model = adapted(whole("llama"), modules_to_save=[module], ensure_weight_tying=True)
    own.train(model, lambda: model.loss(model.collate([], QUESTIONS, ANSWERS)), steps=3)
    reads, writes = model.base.get_input_embeddings(), model.base.get_output_embeddings()
    assert reads.modules_to_save["default"].weight is writes.modules_to_save["default"].weight
    assert not torch.equal(reads.modules_to_save["default"].weight, reads.original_module.weight)


def test_what_is_not_shared_is_copied_as_before() -> None:
    model = adapted(whole("bert", LABEL), modules_to_save=["classifier"])
    assert any("classifier.modules_to_save" in name for name, p in model.module.named_parameters() if p.requires_grad)

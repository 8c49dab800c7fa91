"""Methods of peft on a whole transformers model, virtual tokens above all."""

from __future__ import annotations

import pytest
import torch

from bench.errors import BenchError
from bench.models import hf
from bench.plugins.contracts import TaskFacts
from bench.training.params import count_params
from tests.contracts.model_cases import greedy
from tests.models.hf import models as tiny
from tests.models.hf.models import ASK, GREEDY, LABEL, LOOK, QUESTIONS, WHOLE, WRITE

MODELS = [
    *((name, WRITE, "CAUSAL_LM") for name in ("gpt2", "llama", "opt")),
    *((name, WRITE, "SEQ_2_SEQ_LM") for name in ("t5", "bart")),
    *((name, LABEL, "SEQ_CLS") for name in ("bert", "gpt2", "llama")),
]


@pytest.mark.parametrize("name", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"])
@pytest.mark.parametrize(("model_type", "task", "task_type"), MODELS)
def test_virtual_tokens_train_and_reach_every_answer(
    model_type: str, task: TaskFacts, task_type: str, name: str
) -> None:
    model = tiny.make(model_type, task, parts=WHOLE)
    assert model.part_facts["model"].task_type == task_type
    method = tiny.method(name, num_virtual_tokens=3)
    done = tiny.put(model, {"model": "P"}, P=method)
    tiny.loss(model, task).backward()  # type: ignore[no-untyped-call]
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    prompts = [p for n, p in trained.items() if "prompt_encoder" in n]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in prompts)
    model.module.eval()
    before = tiny.loss(model, task).item()
    with torch.no_grad():
        for parameter in prompts:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=5)
    assert abs(tiny.loss(model, task).item() - before) > 1e-6
    together = tiny.predict(model, task, QUESTIONS)
    assert tiny.same(together, [tiny.predict(model, task, [question])[0] for question in QUESTIONS])
    if task.output == "text":
        batch = model.collate([], QUESTIONS, [])
        assert model.generate(batch, GREEDY) == greedy(model, batch, GREEDY.max_new_tokens)
    counted = count_params(model, {"model": "P"}, done)
    on_meta = tiny.make(model_type, task, parts=WHOLE, device="meta")
    assert count_params(on_meta, {"model": "P"}, tiny.put(on_meta, {"model": "P"}, P=method)) == counted


def test_a_label_head_is_trained_beside_an_adapter_on_the_whole_model() -> None:
    model = tiny.make("bert", LABEL, parts=WHOLE)
    done = tiny.put(model, {"model": "LoRA"}, LoRA=tiny.method("LORA", r=2))
    trained = {n: p.numel() for n, p in model.module.named_parameters() if p.requires_grad}
    head = "model.base_model.model.classifier.modules_to_save.default"
    assert {n for n in trained if "lora" not in n} == {f"{head}.weight", f"{head}.bias"}
    assert not any("lora" in n and ("classifier" in n or "pooler" in n) for n in trained)
    assert count_params(model, {"model": "LoRA"}, done).stored == sum(trained.values())
    assert tiny.train(model, lambda: tiny.loss(model, LABEL), steps=60)[1] < 0.5


@pytest.mark.parametrize(("model_type", "task"), [("vit", LOOK), ("t5", LABEL), ("llava", ASK)])
def test_virtual_tokens_that_do_not_fit_are_refused_in_the_spec(model_type: str, task: TaskFacts) -> None:
    given = hf.Settings(family="hf", config={"model_type": model_type}, parts={"model": "", "other": "encoder"})
    assert {facts.task_type for facts in hf.parts(given, task).values()} == {None}


def test_no_prefix_under_gradient_checkpointing() -> None:
    model = tiny.make("llama", WRITE, parts=WHOLE)
    tiny.put(model, {"model": "P"}, P=tiny.method("PREFIX_TUNING", num_virtual_tokens=3))
    with pytest.raises(BenchError, match="PREFIX_TUNING"):
        model.checkpoint_activations()


@torch.no_grad()
def test_an_answer_under_adaption_prompts_does_not_depend_on_padding() -> None:
    """Their queries have absolute positions, and a forward pass went past the hook that numbers these."""
    model = tiny.make("llama", WRITE, parts=WHOLE)
    tiny.put(model, {"model": "P"}, P=tiny.method("ADAPTION_PROMPT", adapter_len=4, adapter_layers=2))
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            parameter.normal_(0, 2)
    model.module.eval()
    batch = model.collate([], [QUESTIONS[0], f"{QUESTIONS[1]} {QUESTIONS[0]}"], [])
    assert not batch["attention_mask"].all()
    for row, mask in zip(range(2), batch["attention_mask"].bool(), strict=True):
        together = model.model(**batch).logits[row, -1]
        alone = model.model(input_ids=batch["input_ids"][row : row + 1, mask]).logits[0, -1]
        torch.testing.assert_close(together, alone)

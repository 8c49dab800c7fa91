"""For every method: an adapter that was trained, stored and loaded into a fresh model predicts as the trained one.

What cannot be put on a model, and what fails in peft itself, is listed with the library's own words.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTModel,
)

from bench.errors import BenchError
from bench.methods.common import library
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings
from bench.spec.sections import AnyMethod
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import check_frozen
from bench.training.data import load_data, task_of
from bench.training.params import count_params, stored_tensors, write_tensors
from tests import factories
from tests.training.conftest import Make
from tests.training.runs import load_stored

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT: dict[str, Any] = {"vocab_size": 32, "max_position_embeddings": 64, **SIZES}
TINY: dict[str, tuple[Callable[[], Any], str | None, list[str]]] = {
    "bert": (lambda: BertModel(BertConfig(**TEXT)), "FEATURE_EXTRACTION", ["query", "value"]),
    "gpt2": (
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=2, n_head=2, n_positions=64)),
        "CAUSAL_LM",
        ["c_attn"],
    ),
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**TEXT)), "CAUSAL_LM", ["q_proj", "v_proj"]),
    "vit": (lambda: ViTModel(ViTConfig(image_size=16, patch_size=8, **SIZES)), None, ["q_proj", "v_proj"]),
}
"""Model of a few thousand parameters, its task type, LoRA's targets."""
MODELS = (*TINY, "miss")
FIELDS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1},
    "C3A": {"block_size": 8},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "CPT": {"cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2]},
    "IA3": {"feedforward_modules": []},
    "MISS": {"r": 8},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 4, "prefix_projection": True},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": list(range(12))},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 100},
}
"""What a type needs on models this small."""
OURS: dict[str, dict[str, Any]] = {
    "lora": {"modules_to_save": {"net": ["intermediate"]}},
    "ia3": {"targets": {"net": ["key", "output.dense"]}, "feedforward_modules": {"net": ["output.dense"]}},
    "prefix": {},
    "ptuning_v2": {},
    "bitfit": {},
    "norm_layers": {},
    "last_blocks": {"k": 1},
    "head": {"targets": {"net": ["layer.1.output.dense"]}},
    "subset": {"include": ["*.query.*"]},
}
_LINEAR_ONLY = (
    """ADAMSS BEFT BOFT C3A DELORA GLORA HRA LILY LOHA LOKR MISS OFT PEANUT POLY PSOFT ROAD SHIRA SUPERTUNING"""
)
REFUSED: dict[tuple[str, str], str] = {
    **{("gpt2", name): "Conv1D" for name in _LINEAR_ONLY.split()},
    **{("vit", name): "takes no virtual tokens" for name in library.types() if library.method(name).takes_prompts},
    ("gpt2", "OSF"): "method M trains nothing on part net",
    ("bert", "ADAPTION_PROMPT"): "Unsupported model type for adaption prompt: 'bert'",
    ("vit", "ADAPTION_PROMPT"): "Unsupported model type for adaption prompt: 'vit'",
    ("miss", "ADAPTION_PROMPT"): "Unsupported model type for adaption prompt: 'blip_text_model'",
    ("bert", "CPT"): "only supports task_type = CAUSAL_LM",
    ("miss", "CPT"): "only supports task_type = CAUSAL_LM",
    ("bert", "SHADOW"): "Unable to automatically find a `nn.ModuleList`",
    ("miss", "SHADOW"): "Unable to automatically find a `nn.ModuleList`",
    ("vit", "TRAINABLE_TOKENS"): "'ViTPatchEmbeddings' object has no attribute 'weight'",
    **{(model, "XLORA"): "mixes LoRA adapters that were trained before" for model in MODELS},
}
"""(model, type) -> words of the error before training."""
FAILING: dict[tuple[str, str], str] = {
    ("vit", "SHADOW"): "its forward pass wants input_ids",
}
"""(model, type) -> why peft's wrapper fails in training."""


SEEDS = itertools.count(1)


class TinyModel:
    """A model of one part, ``net``."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        make, task_type, targets = TINY[name]
        self.part_facts = {"net": PartFacts(name="net", task_type=task_type, targets={"lora": targets})}
        self.module: Any = torch.nn.ModuleDict({"net": make()})
        generator = torch.Generator().manual_seed(1)
        self._inputs = (
            {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
            if name == "vit"
            else {"input_ids": torch.randint(3, 32, (2, 6), generator=generator)}
        )

    def part(self, name: str) -> Any:
        return self.module[name]

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        self.module[name] = adapted

    def output(self) -> torch.Tensor:
        """Logits or last hidden state of a fixed batch."""
        output = self.part("net")(**self._inputs)
        scores: torch.Tensor = output.logits if "logits" in output else output.last_hidden_state
        return scores


@pytest.fixture(scope="module")
def make(make_cell: Make) -> Callable[[str], Any]:
    """A model by name, always with the same weights and one part, ``net``."""
    cell = make_cell(model={"initializer_range": 0.3})  # a wide one, so that the loss depends on every part
    plugin = factories.plugin("models", cell.model.family)
    data = load_data(cell.data)

    def made(name: str) -> Any:
        if name != "miss":
            return TinyModel(name)
        torch.manual_seed(0)
        model: Any = plugin.build(cell.model, texts=["what shape is it yes no"], device="cpu")
        batch = data.training_batch(model, task_of(cell, data), data.train[:2], random.Random(0)).tensors
        model.output = lambda: model.loss(batch)[None]
        facts, part, replace = plugin.PARTS["jtm"], model.part, model.replace_part
        model.part = lambda name: part({"net": "jtm"}.get(name, name))
        model.replace_part = lambda _, adapted: replace("jtm", adapted)
        model.part_facts = {"net": PartFacts(name="net", task_type=facts.task_type, targets=facts.targets)}
        return model

    return made


CASES = [(model, name) for model in MODELS for name in library.types()]


@pytest.mark.parametrize(("model", "name"), CASES, ids=[f"{model}-{name}" for model, name in CASES])
def test_every_type_of_the_library(
    make: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest, model: str, name: str
) -> None:
    method = TypeAdapter(AnyMethod).validate_python({"peft_type": name, **FIELDS.get(name, {})})
    if (model, name) in REFUSED:
        with pytest.raises(BenchError) as raised:
            adapted(make, model, method)
        assert REFUSED[model, name] in str(raised.value)
        return
    if (model, name) in FAILING:
        adapted(make, model, method)  # it can be put on: what fails is its forward pass
        reason = FAILING[model, name]
        request.applymarker(
            pytest.mark.xfail(reason=reason, strict=True, raises=(ValueError, AttributeError, RuntimeError))
        )
    check(make, model, method, tmp_path / "adapter.safetensors")


@pytest.mark.parametrize("type_", OURS)
def test_every_method_of_our_own(make: Callable[..., Any], tmp_path: Path, type_: str) -> None:
    method = TypeAdapter(AnyMethod).validate_python({"type": type_, **OURS[type_]})
    check(make, "bert", method, tmp_path / "adapter.safetensors")


def adapted(make: Callable[..., Any], name: str, method: MethodSettings) -> tuple[Any, dict[str, AppliedMethod]]:
    model = make(name)
    factories.plugin("methods", method.type).check(method, model.part_facts["net"])
    torch.manual_seed(next(SEEDS))  # the adapter is drawn anew each time, the model is not
    adapters = adapt(model, model.part_facts, {"net": "M"}, {"M": method})
    check_frozen(model, {"net": "M"}, adapters)
    model.module.eval()
    return model, adapters


def check(make: Callable[..., Any], name: str, method: MethodSettings, file: Path) -> None:
    trained, adapters = adapted(make, name, method)
    with torch.no_grad():
        before = trained.output()
    train(trained)
    with torch.no_grad():
        expected = trained.output()
    assert not torch.allclose(before, expected, atol=1e-5), "training changed nothing, so this test could not fail"
    tensors = stored_tensors(trained, {"net": "M"}, adapters)
    assert count_params(trained, {"net": "M"}, adapters).stored == sum(t.numel() for t in tensors.values())
    write_tensors(file, tensors)

    fresh, others = adapted(make, name, method)
    load_stored(fresh, {"net": "M"}, others, file)
    with torch.no_grad():
        torch.testing.assert_close(fresh.output(), expected, rtol=0, atol=1e-6)


def train(model: Any) -> None:
    """A few steps towards noise: every output moves."""
    optimizer = torch.optim.AdamW([p for p in model.module.parameters() if p.requires_grad], lr=3e-2)
    with torch.no_grad():
        output = model.output()
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model.output(), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

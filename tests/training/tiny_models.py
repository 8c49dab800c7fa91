"""Models of a few thousand parameters as BenchModels of one part, ``net``: what tests of methods train and evaluate."""

from __future__ import annotations

from typing import Any

import torch
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

from bench.plugins.contracts import PartFacts

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT: dict[str, Any] = {"vocab_size": 32, "max_position_embeddings": 64, **SIZES}
FACTS = {
    "bert": PartFacts(name="net", task_type="FEATURE_EXTRACTION", targets={"lora": ["query", "value"]}),
    "gpt2": PartFacts(name="net", task_type="CAUSAL_LM", targets={"lora": ["c_attn"]}),
    "llama": PartFacts(name="net", task_type="CAUSAL_LM", targets={"lora": ["q_proj", "v_proj"]}),
    "vit": PartFacts(name="net", task_type=None, targets={"lora": ["q_proj", "v_proj"]}),
}


class TinyModel:
    """One part, which is the whole model."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.facts = {"net": FACTS[name]}
        self.module: torch.nn.Module = torch.nn.ModuleDict({"net": _MAKERS[name]()})  # type: ignore[no-untyped-call]
        generator = torch.Generator().manual_seed(1)
        self._inputs = (
            {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
            if name == "vit"
            else {"input_ids": torch.randint(3, 32, (2, 6), generator=generator)}
        )

    def part(self, name: str) -> torch.nn.Module:
        return self.module.get_submodule(name)

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        assert isinstance(self.module, torch.nn.ModuleDict)
        self.module[name] = adapted

    def output(self) -> torch.Tensor:
        """Logits or last hidden state of a fixed batch."""
        output = self.part("net")(**self._inputs)
        found: torch.Tensor = output.logits if "logits" in output else output.last_hidden_state
        return found


_MAKERS = {
    "bert": lambda: BertModel(BertConfig(**TEXT)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=32, n_layer=2, n_head=2, n_positions=64)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**TEXT)),
    "vit": lambda: ViTModel(ViTConfig(image_size=16, patch_size=8, **SIZES)),
}

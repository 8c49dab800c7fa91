"""Tiny transformers models of several architectures, and the texts they learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from bench import registry
from bench.models import hf
from bench.plugins.contracts import GenerateOptions, TaskFacts
from bench.plugins.settings import MethodSettings
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import check_frozen

LABELS = ("neg", "pos")
WRITE = TaskFacts(name="write", inputs=("text",), output="text")
LABEL = TaskFacts(name="label", inputs=("text",), output="label", labels=LABELS)
LOOK = TaskFacts(name="look", inputs=("image",), output="label", labels=LABELS)
ASK = TaskFacts(name="ask", inputs=("image", "text"), output="text")
QUESTIONS = ["a good one", "bad", "what a bad and long one .", "so good ."]
ANSWERS = ["pos", "neg", "neg", "pos"]
TEXTS = [*QUESTIONS, *ANSWERS]
BEAMS = GenerateOptions(num_beams=2, max_new_tokens=4)
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
_VIT = _BERT | {"image_size": 16, "patch_size": 4}
del _VIT["max_position_embeddings"]
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": _BERT,
    "llama": _BERT | {"num_key_value_heads": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 64,
    },
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
}
Batch = dict[str, torch.Tensor]


def settings(model_type: str, **changes: Any) -> hf.Settings:
    return hf.Settings(family="hf", config={"model_type": model_type, **CONFIGS[model_type]}, **changes)


def make(model_type: str, task: TaskFacts, *, device: str = "cpu", **changes: Any) -> Any:
    torch.manual_seed(0)
    return hf.build(settings(model_type, **changes), texts=TEXTS, device=device, task=task)


def method(name: str, **fields: Any) -> MethodSettings:
    """Of a file of its own, or of the library by its type in upper case."""
    own = name in registry.names("methods")
    given = {"type": name, **fields} if own else {"type": "peft_config", "peft_type": name, **fields}
    made: MethodSettings = registry.load("methods", given["type"]).Settings.model_validate(given)
    return made


def put(model: Any, parts: Mapping[str, str], **methods: MethodSettings) -> dict[str, AppliedMethod]:
    """Freeze, train and adapt, audited."""
    done = adapt(model, model.part_facts, parts, methods)
    check_frozen(model, parts, done)
    return done


def loss(model: Any, task: TaskFacts) -> torch.Tensor:
    if task.output == "text":
        return model.loss(model.collate([], QUESTIONS, ANSWERS))  # type: ignore[no-any-return]
    return cross_entropy(model.logits(model.collate([], QUESTIONS, [])), torch.tensor(list(map(LABELS.index, ANSWERS))))


def train(model: Any, compute: Callable[[], torch.Tensor], steps: int = 40, lr: float = 1e-2) -> tuple[float, float]:
    """First and last loss."""
    model.module.train()
    optimizer = torch.optim.AdamW([p for p in model.module.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = compute()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    model.module.eval()
    return losses[0], losses[-1]


@torch.no_grad()
def predict(model: Any, task: TaskFacts, questions: list[str]) -> list[Any]:
    """Texts, or rows of logits."""
    model.module.eval()
    batch = model.collate([], questions, [])
    return model.generate(batch, BEAMS) if task.output == "text" else list(model.logits(batch))

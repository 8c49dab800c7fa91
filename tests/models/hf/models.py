"""Tiny transformers models of several architectures, and the texts they learn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import CONFIG_MAPPING

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
WORDS = [f"w{i}x" for i in range(60)]
BEAMS = GenerateOptions(num_beams=2, max_new_tokens=4)
GREEDY = GenerateOptions(num_beams=1, max_new_tokens=4)
WHOLE = {"model": ""}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_BERT = {**_SIZES, "intermediate_size": 64, "max_position_embeddings": 64}
_VIT = {**_SIZES, "intermediate_size": 64, "image_size": 16, "patch_size": 4}
_BART = {f"{side}_{size}": n for side in ("encoder", "decoder") for size, n in (("layers", 2), ("attention_heads", 2))}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": _BERT,
    "llama": _BERT | {"num_key_value_heads": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "opt": {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "bart": {**_BART, "d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64},
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": {**_SIZES, "image_size": 16, "patch_size": 4},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
}


def settings(model_type: str, **changes: Any) -> hf.Settings:
    return hf.Settings(family="hf", config={"model_type": model_type, **CONFIGS[model_type]}, **changes)


def make(model_type: str, task: TaskFacts, *, device: str = "cpu", **changes: Any) -> Any:
    return build(settings(model_type, **changes), task, TEXTS, device)


def make_small(model_type: str, task: TaskFacts, **changes: Any) -> Any:
    """Any architecture, with the words of ``WORDS``."""
    return build(hf.Settings(family="hf", config=small(model_type), **changes), task, WORDS)


def build(given: hf.Settings, task: TaskFacts, texts: list[str] | None = None, device: str = "cpu") -> Any:
    torch.manual_seed(0)
    return hf.build(given, texts=texts or [], device=device, task=task)


def method(name: str, **fields: Any) -> MethodSettings:
    """A method of its own file, or of peft by its type in upper case."""
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


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of texts, or of rows of logits, are equal."""
    if isinstance(one[0], str):
        return one == other
    return torch.allclose(torch.stack(one), torch.stack(other), atol=1e-5)


def shapes(batch: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}


# Configurations of any architecture of the installed transformers, made shallow, or small, by the names of fields. One
# whose sizes depend on one another may refuse to be built so; tests over all architectures pass over these and say how
# many are left.
_IMAGE_TOKENS = {"vocabulary_map": {"<image>": 5, "IMGIMGA": 6, "<|extra_200|>": 5, "<|visual token 000000|>": 7}}
_REQUIRED: dict[str, dict[str, Any]] = {
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model"}, "text_config": {"model_type": "cohere2"}},
    "chameleon": _IMAGE_TOKENS,
    "emu3": _IMAGE_TOKENS,
    "gemma4": {"vision_config": {}},
    "gemma4_unified": {"vision_config": {}},
    "vision-encoder-decoder": {"encoder": {"model_type": "vit"}, "decoder": {"model_type": "bert"}},
}
"""What an architecture has no default for, or one without a vision tower."""
_DEPTH = r"(.*_)?(num_hidden_layers|num_layers|layers|n_layers?|depth|num_blocks"
_LAYERS = 2
_SMALL: dict[str, int] = {
    r".*vocab_size|vocab_size_per_layer_input": 96,
    rf"{_DEPTH}|num_(en|de)coder_layers)": _LAYERS,
    r"num_key_value_heads|num_kv_heads|n_head_kv|.*_kv_heads|num_query_groups": 2,
    r"(.*_)?(num_attention_heads|n_heads?|num_heads|attention_heads)": 2,
    r"d_kv|attention_head_size|kv_channels|head_size|.*head_dim": 16,
    r"hidden_size|d_model|n_embd|dim|emb(ed)?_dim|embedding_(dim|size)|word_embed_proj_dim|hidden_dim": 32,
    r"model_dim|attention_hidden_size|lru_width|.*_hidden_size|projection_dim": 32,
    r".*intermediate_size|(.*_)?ffn_dim|d_ff|d_inner|n_inner|.*ffn_hidden.*|mlp_dim": 64,
    r".*lora_(rank|dim)": 16,
    r".*num(_local)?_experts|n_routed_experts": 4,
    r".*experts_per_tok(en)?|(?!index).*top_?k|n_group|topk_group": 1,
    r".*max_position.*|n_positions|n_ctx|max_seq.*": 256,
}
_SHALLOW = {rf"{_DEPTH}|max_window_layers)": _LAYERS}
_EXTRA: dict[str, dict[str, Any]] = {"codegen": {"rotary_dim": 8}, "gptj": {"rotary_dim": 8}, "xlnet": {"d_head": 16}}


def shallow(model_type: str) -> Any:
    """Two layers of the published widths, to be built on meta. Raises what the configuration raises."""
    config = CONFIG_MAPPING[model_type](**_REQUIRED.get(model_type, {}))
    config.architectures = []
    _shrink(config, _SHALLOW)
    return config


def small(model_type: str) -> dict[str, Any]:
    """A configuration file of a few thousand weights. Raises what the configuration raises."""
    config = CONFIG_MAPPING[model_type](**_REQUIRED.get(model_type, {}))
    _shrink(config, _SMALL)
    for name, value in _EXTRA.get(model_type, {}).items():
        setattr(config, name, value)
    return {**config.to_dict(), "transformers_version": "5"}


def _shrink(config: Any, sizes: Mapping[str, int]) -> None:
    for name in config.sub_configs:
        if hasattr(inner := getattr(config, name, None), "sub_configs"):
            _shrink(inner, sizes)
    usual = {own: name for name, own in config.attribute_map.items()}
    depths = set()
    for name, value in list(vars(config).items()):
        if isinstance(value, int) and not isinstance(value, bool):
            names = (name,) if sizes is _SHALLOW else (usual.get(name, name), name)
            size = next((size for pattern, size in sizes.items() for n in names if re.fullmatch(pattern, n)), value)
            if size < value:
                depths |= {value} if size == _LAYERS else set()
                setattr(config, name, size)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) > _LAYERS and len(value) in depths:
            last = next((kind for kind in reversed(value) if kind != value[0]), value[-1])  # keep both kinds of layers
            setattr(config, name, value[:_LAYERS] if sizes is _SHALLOW else [value[0], last])

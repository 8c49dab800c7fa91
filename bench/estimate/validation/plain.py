"""Models of ``transformers`` as further cases: what is followed is PyTorch, not one family of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench.estimate.validation.cases import LENGTHS, Case
from bench.plugins.contracts import InputLengths, TextModel
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.training.device import make_precision

_IMAGE = (3, 96, 96)
_TOKENS = -1
"""Stands for the length of a text."""
_PIXELS: dict[str, tuple[int, ...]] = {"pixel_values": _IMAGE, "labels": ()}
_TEXT: dict[str, tuple[int, ...]] = dict.fromkeys(("input_ids", "attention_mask", "labels"), (_TOKENS,))
_SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
}


class Plain:
    """As much of a ``TextModel`` as a trainer needs, around a model of ``transformers`` that computes its loss."""

    def __init__(self, module: Any, inputs: dict[str, tuple[int, ...]]) -> None:
        self.module = module
        self._inputs = inputs

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The model's own."""
        loss: torch.Tensor = self.module(**batch).loss
        return loss

    def checkpoint_activations(self) -> None:
        """As the library does."""
        self.module.gradient_checkpointing_enable({"use_reentrant": False})

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Question and answer as one text."""
        tokens = lengths.question_tokens + lengths.answer_tokens
        found = {}
        for name, shape in self._inputs.items():
            sizes = [batch_size, *(tokens if size == _TOKENS else size for size in shape)]
            found[name] = torch.empty(sizes, dtype=torch.float32 if shape == _IMAGE else torch.long, device="meta")
        return found


def models() -> Iterator[Case]:
    """Small ones, each trained in another way."""
    low_rank = {"precision": "bf16_autocast"}
    yield _case("ViT, full", _vit, {}, _PIXELS)
    yield _case("ViT, head only, SGD", _head_only, {"optimizer": {"name": "sgd"}}, _PIXELS)
    yield _case("ViT, rank 8 on query and value, bf16 autocast", _vit_adapted, low_rank, _PIXELS)
    yield _case("BERT, full, checkpointing", _bert, {"gradient_checkpointing": True}, _TEXT)
    yield _case("BERT, full, bf16, eager attention", lambda: _bert("eager"), {"precision": "bf16"}, _TEXT)
    yield _case(
        "GPT-2, scaled activations, fused AdamW", _gpt2_adapted, {"optimizer": {"implementation": "fused"}}, _TEXT
    )
    yield _case("T5, rank 8, accumulation", _t5_adapted, {"gradient_accumulation_steps": 2}, _TEXT)


def _case(name: str, make: Callable[[], Any], changes: dict[str, Any], inputs: dict[str, tuple[int, ...]]) -> Case:
    optimizer = OptimizerSettings(**{"lr": 1e-4, "implementation": "foreach"} | changes.get("optimizer", {}))
    settings = TrainSettings(
        **{"steps": len(LENGTHS), "batch_size": 16} | {k: v for k, v in changes.items() if k != "optimizer"},
        optimizer=optimizer,
    )

    def build(device: str) -> TextModel:
        with torch.device(device):
            module = make()
        module.to(make_precision(settings.precision, torch.device(device)).weights)
        return Plain(module, inputs)  # type: ignore[return-value]

    return Case(name=name, model="transformers", settings=settings, build=build, cell=None)


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    sizes: dict[str, Any] = _SIZES | {"image_size": _IMAGE[-1], "patch_size": 8, "num_labels": 10}
    return ViTForImageClassification(ViTConfig(**sizes))


def _head_only() -> Any:
    model = _vit()
    model.vit.requires_grad_(False)
    return model


def _vit_adapted() -> Any:
    return _with_low_rank(_vit(), ["q_proj", "v_proj", "query", "value"])


def _bert(attention: str = "sdpa") -> Any:
    from transformers import BertConfig, BertForMaskedLM

    sizes: dict[str, Any] = _SIZES | {"vocab_size": 8000, "attn_implementation": attention}
    return BertForMaskedLM(BertConfig(**sizes))


def _gpt2_adapted() -> Any:
    from peft import IA3Config, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    ends: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8000, n_embd=256, n_layer=6, n_head=8, attn_pdrop=0.0, **ends))
    scaled, before = ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]
    return get_peft_model(model, IA3Config(target_modules=scaled, feedforward_modules=before, fan_in_fan_out=True))


def _t5_adapted() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8}
    sizes |= {"vocab_size": 8000, "decoder_start_token_id": 0, "pad_token_id": 0}
    return _with_low_rank(T5ForConditionalGeneration(T5Config(**sizes)), ["q", "v"])


def _with_low_rank(model: Any, targets: list[str]) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=8, target_modules=targets))

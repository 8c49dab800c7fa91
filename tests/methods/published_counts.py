"""Parameter counts that others printed, with the architecture, the method and where they stand.

Two kinds of source: examples and documentation of ``peft`` (its repository at 5d602fd), and the results of its method
comparison on Llama 3.2 3B, one JSON file a method. Left out are printed counts that no version of today's libraries
gives: those that counted the frozen twin of a module in ``modules_to_save`` as trained, or as part of the total.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import torch

PEFT = "https://github.com/huggingface/peft/blob/5d602fdbff04c33c1c4de55cda9d4ae1d7cb7e40/"
OLDER = "d6dbbc919576d92c31d00994e41cb503ff132c94"
COMPARISON = PEFT + "method_comparison/MetaMathQA/results/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """What a source says of one configuration."""

    model: str
    """Key of ``MODELS``."""
    method: dict[str, Any]
    """As a spec has it."""
    trainable: int
    total: int | None
    """Null where the source counts something twice that we count once."""
    source: str
    task_type: str | None = None


def _transformers(name: str, config: str, **sizes: Any) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        import transformers

        made: torch.nn.Module = getattr(transformers, name)(getattr(transformers, config)(**sizes))
        return made

    return make


def _untied(make: Callable[[], torch.nn.Module]) -> Callable[[], torch.nn.Module]:
    """T5 1.1 and mT5 have a head of their own; this release of transformers ties it unless weights say otherwise."""

    def untie() -> torch.nn.Module:
        model = make()
        head: Any = model.lm_head
        head.weight = torch.nn.Parameter(torch.empty_like(head.weight))
        return model

    return untie


_ROBERTA: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_T5: dict[str, Any] = {"d_model": 1024, "d_kv": 64, "num_layers": 24, "num_heads": 16}
_GATED: dict[str, Any] = {**_T5, "d_ff": 2816}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "bert-base-cased": _transformers("BertForSequenceClassification", "BertConfig", vocab_size=28996),
    "bert-large-cased": _transformers("BertModel", "BertConfig", vocab_size=28996, **_LARGE),
    "roberta-base": _transformers("RobertaForSequenceClassification", "RobertaConfig", **_ROBERTA),
    "roberta-large": _transformers("RobertaForSequenceClassification", "RobertaConfig", **_ROBERTA, **_LARGE),
    "gpt2-large": _transformers("GPT2LMHeadModel", "GPT2Config", n_embd=1280, n_layer=36, n_head=20),
    "t5-large": _transformers("T5ForConditionalGeneration", "T5Config", vocab_size=32128, d_ff=4096, **_T5),
    "flan-t5-large": _untied(
        _transformers(
            "T5ForConditionalGeneration", "T5Config", vocab_size=32128, feed_forward_proj="gated-gelu", **_GATED
        )
    ),
    "mt0-large": _untied(_transformers("MT5ForConditionalGeneration", "MT5Config", vocab_size=250112, **_GATED)),
    "bloomz-560m": _transformers(
        "BloomForCausalLM", "BloomConfig", vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16
    ),
    "opt-125m": _transformers("OPTForCausalLM", "OPTConfig", vocab_size=50272),
    "opt-350m": _transformers(
        "OPTForCausalLM",
        "OPTConfig",
        vocab_size=50272,
        hidden_size=1024,
        ffn_dim=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        word_embed_proj_dim=512,
        do_layer_norm_before=False,
    ),
    "llama-3.2-1b": _transformers(
        "LlamaForCausalLM",
        "LlamaConfig",
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
    "llama-3.2-3b": _transformers(
        "LlamaForCausalLM",
        "LlamaConfig",
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
    "qwen2.5-3b": _transformers(
        "Qwen2ForCausalLM",
        "Qwen2Config",
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "vit-base": _transformers("ViTForImageClassification", "ViTConfig", num_labels=101),
    "whisper-large-v2": _transformers(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        vocab_size=51865,
        d_model=1280,
        encoder_layers=32,
        decoder_layers=32,
        encoder_attention_heads=20,
        decoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_ffn_dim=5120,
    ),
    "layoutlm-base": _transformers("LayoutLMForTokenClassification", "LayoutLMConfig", num_labels=13),
}


def _documented() -> list[Printed]:
    qv, vision = ["query", "value"], ["q_proj", "v_proj"]  # this release of transformers renamed ViT's query and value
    head = {"modules_to_save": ["classifier"]}
    adalora = {"r": 8, "init_r": 12, "tinit": 200, "tfinal": 1000, "total_step": 5000}
    bank = {"r": 4, "num_vectors": 90, "vector_length": 256}
    wide = ["key", "value", "query", "output.dense", "intermediate.dense"]
    rows: list[tuple[str, str | None, dict[str, Any], int, int | None, str]] = [
        ("bert-base-cased", "SEQ_CLS", {"peft_type": "LORA", "target_modules": ["query", "key"]}, 296450, 108608260,
         "examples/evaluation/lora-lm-eval.ipynb"),
        ("bert-base-cased", "SEQ_CLS", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, 370178, None,
         "src/peft/peft_model.py"),
        ("gpt2-large", "CAUSAL_LM", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, 1843200, 775873280,
         "src/peft/peft_model.py"),
        ("t5-large", "SEQ_2_SEQ_LM", {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}, 40960, 737709056,
         "examples/conditional_generation/peft_prompt_tuning_seq2seq.ipynb"),
        ("flan-t5-large", "SEQ_2_SEQ_LM", {"peft_type": "LORA", "r": 16, "target_modules": ["q", "v"]}, 4718592,
         787868672, "examples/int8_training/Finetune_flan_t5_large_bnb_peft.ipynb"),
        ("mt0-large", "SEQ_2_SEQ_LM", {"peft_type": "LORA", "r": 8}, 2359296, 1231940608,
         f"../{OLDER}/README.md"),
        ("mt0-large", "SEQ_2_SEQ_LM", {"peft_type": "IA3", "feedforward_modules": []}, 282624, 1229863936,
         "examples/conditional_generation/peft_ia3_seq2seq.ipynb"),
        ("bloomz-560m", "CAUSAL_LM", {"peft_type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 128},
         300288, 559514880, "docs/source/package_reference/p_tuning.md"),
        ("bloomz-560m", "CAUSAL_LM", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, 983040, 560197632,
         "docs/source/package_reference/prefix_tuning.md"),
        ("bloomz-560m", "CAUSAL_LM", {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 30}, 1474560, 560689152,
         "examples/causal_language_modeling/peft_prefix_tuning_clm.ipynb"),
        ("bloomz-560m", "CAUSAL_LM", {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8}, 8192, 559222784,
         "docs/source/package_reference/prompt_tuning.md"),
        ("bloomz-560m", "CAUSAL_LM", {"peft_type": "LN_TUNING"}, 100352, 559314944,
         "examples/causal_language_modeling/peft_ln_tuning_clm.ipynb"),
        ("opt-350m", "CAUSAL_LM", {"peft_type": "LORA", "r": 16, "target_modules": vision}, 1572864, 332769280,
         "docs/source/guides/peft_model_config.md"),
        ("opt-125m", None, {"peft_type": "HIRA", "target_modules": ["k_proj", "q_proj", "v_proj", "fc1", "fc2"]},
         4718592, 129957888, "docs/source/package_reference/hira.md"),
        ("llama-3.2-1b", "CAUSAL_LM", {"peft_type": "LORA", "target_modules": ["q_proj"]}, 524288, 1236338688,
         "docs/source/quicktour.md"),
        ("qwen2.5-3b", "CAUSAL_LM", {"peft_type": "LORA", "r": 16}, 3686400, 3089625088, "README.md"),
        ("vit-base", None, {"peft_type": "LORA", "r": 16, "target_modules": vision, **head}, 667493, 86543818,
         "docs/source/package_reference/lora.md"),
        ("vit-base", None, {"peft_type": "ADALORA", **adalora, "target_modules": vision, **head}, 520325, None,
         "docs/source/package_reference/adalora.md"),
        ("vit-base", None, {"peft_type": "LOKR", "r": 16, "alpha": 16, "target_modules": vision, **head}, 116069, None,
         "docs/source/package_reference/lokr.md"),
        ("roberta-base", "SEQ_CLS", {"peft_type": "C3A", "block_size": 768, "target_modules": qv}, 610562, 125257732,
         "examples/sequence_classification/C3A.ipynb"),
        ("roberta-base", "SEQ_CLS", {"peft_type": "FOURIERFT", "target_modules": qv}, 616130, 125263300,
         "examples/sequence_classification/FourierFT.ipynb"),
        ("roberta-base", "SEQ_CLS", {"peft_type": "VERA", "r": 8, "target_modules": [*qv, "intermediate.dense"]},
         647714, 125294884, "examples/sequence_classification/VeRA.ipynb"),
        ("roberta-large", "SEQ_CLS", {"peft_type": "VBLORA", **bank, "target_modules": wide}, 1696770, 357058564,
         "examples/sequence_classification/VBLoRA.ipynb"),
        ("layoutlm-base", "TOKEN_CLS", {"peft_type": "LORA", "r": 16, "bias": "all"}, 702733, 113237786,
         "examples/token_classification/peft_lora_token_cls.ipynb"),
        ("whisper-large-v2", None, {"peft_type": "LORA", "r": 32, "target_modules": vision}, 15728640, 1559033600,
         "examples/int8_training/peft_bnb_whisper_large_v2_training.ipynb"),
    ]  # fmt: skip
    return [
        Printed(
            model=model, task_type=task, method=method, trainable=trainable, total=total, source=urljoin(PEFT, place)
        )
        for model, task, method, trainable, total, place in rows
    ]


def _compared() -> list[Printed]:
    """Totals include 3,212,749,824 parameters of Llama 3.2 3B."""
    attention = {"target_modules": ["q_proj", "v_proj"]}
    rows: list[tuple[dict[str, Any], int, int, str]] = [
        ({"peft_type": "ADAPTION_PROMPT", "adapter_len": 100, "adapter_layers": 28}, 8601628, 3221351452,
         "adaptionprompt--llama-3.2-3B-lr_5e-3"),
        ({"peft_type": "BEFT", "target_modules": ["v_proj"]}, 28672, 3212778496, "beft--llama-3.2-3B-target-v_proj"),
        ({"peft_type": "BOFT", **attention}, 802816, 3213552640, "boft--llama-3.2-3B-default"),
        ({"peft_type": "C3A", "block_size": 64, **attention}, 5505024, 3218254848, "c3a--llama-3.2-3B-default"),
        ({"peft_type": "DEFT", "r": 32, "alpha": 128, **attention}, 9175040, 3221924864, "deft--llama-3.2-3B-rank32"),
        ({"peft_type": "DELORA", "r": 32, **attention}, 9175096, 3221924920, "delora--llama-3.2-3B-rank32"),
        ({"peft_type": "GLORA", **attention}, 4587520, 3217337344, "glora--llama-3.2-3B-default"),
        ({"peft_type": "GRALORA", **attention}, 9175040, 3221924864, "gralora--llama-3.2-3B-rank32"),
        ({"peft_type": "IA3", "target_modules": ["down_proj", "v_proj", "k_proj"],
          "feedforward_modules": ["down_proj"]}, 286720, 3213036544, "ia3--llama-3.2-3B-default"),
        ({"peft_type": "LILY", "r": 896, "stride_A": 14, **attention}, 18450432, 3231200256,
         "lily--llama-3.2-3B-rank896-a2-b2-s2.0"),
        ({"peft_type": "LOHA", "r": 32, **attention}, 18350080, 3231099904, "loha--llama-3.2-3B-rank32"),
        ({"peft_type": "LOKR", "r": 32, "decompose_factor": 4, **attention}, 2294656, 3215044480,
         "lokr--llama-3.2-3B-rank32-factor4-lr0.003"),
        ({"peft_type": "LORA", "r": 32, "use_dora": True, **attention}, 9289728, 3222039552,
         "lora--llama-3.2-3B-rank32-dora"),
        ({"peft_type": "MISS", **attention}, 7340032, 3220089856, "miss--llama-3.2-3B-default"),
        ({"peft_type": "OFT", "r": 32, "oft_block_size": 0, **attention}, 8171520, 3220921344,
         "oft--llama-3.2-3B-rank32"),
        ({"peft_type": "PEANUT", **attention}, 7340032, 3220089856, "peanut--llama-3.2-3B-rank32-relu-depth0-s2.0"),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 3072}, 28382208, 3241132032,
         "ptuning--llama-3.2-3B-default"),
        ({"peft_type": "PVERA", **attention}, 143360, 3212893184, "pvera--llama-3.2-3B-default"),
        ({"peft_type": "ROAD", "variant": "road_2", **attention}, 229376, 3212979200, "road--llama-3.2-3B-lr_0.001"),
        ({"peft_type": "TINYLORA", **attention}, 3584, 3212753408, "tinylora--llama-3.2-3B-default"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": [128000, 128001], "target_modules": "model.embed_tokens"},
         6144, 3212755968, "trainable_tokens--llama-3.2-3B-sos+eos"),
        ({"peft_type": "VERA", **attention}, 129024, 3212878848, "vera--llama-3.2-3B-default"),
    ]  # fmt: skip
    return [
        Printed(
            model="llama-3.2-3b",
            task_type="CAUSAL_LM",
            method=method,
            trainable=trainable,
            total=total,
            source=f"{COMPARISON}{name}.json",
        )
        for method, trainable, total, name in rows
    ]


PRINTED = [*_documented(), *_compared()]

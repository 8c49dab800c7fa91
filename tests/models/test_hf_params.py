"""Parameters of published models, and of adapters in peft's own documentation, counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest

from bench.models import hf
from bench.plugins.contracts import TaskFacts
from bench.plugins.settings import MethodSettings
from bench.training.params import count_params
from tests.models import hf_models as own
from tests.models.hf_models import ASK, WRITE


def labels(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


TEXT = TaskFacts(name="label", inputs=("text",), output="label", labels=labels(2))
IMAGE = TaskFacts(name="look", inputs=("image",), output="label", labels=labels(1000))
THREE, WRITES = ["embeddings", "encoder", "head"], ["embeddings", "decoder"]
MODELS: list[tuple[str, dict[str, Any], TaskFacts, int, list[str]]] = [
    # As the Hub's repositories or the papers' tables have them, and in brackets what a head for two labels adds.
    ("bert", {}, TEXT, 109_482_240 + 1_538, THREE),
    ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}, TEXT, 124_647_170, THREE),
    ("distilbert", {}, TEXT, 66_955_010, THREE),
    (
        "albert",
        {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        TEXT,
        11_683_584 + 1_538,
        THREE,
    ),
    ("electra", {}, TEXT, 13_549_314, THREE),
    (
        "deberta-v2",
        {
            "vocab_size": 128100,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "pooler_hidden_size": 768,
        },
        TEXT,
        184_423_682,
        THREE,
    ),
    ("modernbert", {}, TEXT, 149_606_402, THREE),
    ("gpt2", {}, WRITE, 124_439_808, WRITES),
    ("opt", {}, WRITE, 125_239_296, WRITES),
    (
        "gpt_neox",
        {
            "hidden_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
            "vocab_size": 50304,
        },
        WRITE,
        70_426_624,
        [*WRITES, "head"],
    ),
    ("llama", {}, WRITE, 6_738_415_616, [*WRITES, "head"]),
    ("mistral", {}, WRITE, 7_241_732_096, [*WRITES, "head"]),
    (
        "qwen2",
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
        WRITE,
        494_032_768,
        WRITES,
    ),
    (
        "qwen3",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 3072,
            "head_dim": 128,
            "tie_word_embeddings": True,
        },
        WRITE,
        596_049_920,
        WRITES,
    ),
    (
        "gemma",
        {
            "hidden_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "intermediate_size": 16384,
        },
        WRITE,
        2_506_172_416,
        WRITES,
    ),
    ("t5", {}, WRITE, 60_506_624, ["embeddings", "encoder", "decoder"]),
    (
        "bart",
        {
            "d_model": 768,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 12,
            "decoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
            "decoder_ffn_dim": 3072,
        },
        WRITE,
        139_420_416,
        ["embeddings", "encoder", "decoder"],
    ),
    ("vit", {}, IMAGE, 86_567_656, THREE),
    ("deit", {}, IMAGE, 86_567_656 + 2 * 768, THREE),  # the library's has a distillation token
    ("swin", {}, IMAGE, 28_288_354, THREE),
    ("beit", {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}, IMAGE, 86_530_984, THREE),
    ("convnextv2", {}, IMAGE, 28_635_496, THREE),
    ("resnet", {}, IMAGE, 25_557_032, THREE),
    ("dinov2", {"image_size": 518, "patch_size": 14}, IMAGE, 86_580_480 + 2 * 768 * 1000 + 1000, THREE),
    (
        "blip",
        {"vision_config": {"image_size": 480}, "text_config": {"vocab_size": 30524}},
        ASK,
        361_478_972,
        ["embeddings", "encoder", "decoder", "head"],
    ),
]


@pytest.mark.parametrize(("model_type", "config", "task", "total", "parts"), MODELS, ids=[each[0] for each in MODELS])
def test_default_parts_are_disjoint_and_together_the_published_model(
    model_type: str, config: dict[str, Any], task: TaskFacts, total: int, parts: list[str]
) -> None:
    model = build({"model_type": model_type, **config}, task)
    assert list(model.part_facts) == parts
    ids = [{id(p): p.numel() for p in model.part(part).parameters()} for part in parts]
    assert sum(sum(own.values()) for own in ids) == total
    assert len(set().union(*ids)) == sum(map(len, ids)) == len(list(model.module.parameters()))
    assert set(hf.parts(hf.Settings(family="hf", config={"model_type": model_type}), task)) >= set(parts)


def build(config: dict[str, Any], task: TaskFacts, **changes: Any) -> Any:
    if "image" not in task.inputs and "vocab_size" not in config:
        config = {"vocab_size": VOCABULARIES[config["model_type"]], **config}
    given = hf.Settings(family="hf", config=config, **changes)
    return hf.build(given, texts=["?"], device="meta", task=task)


VOCABULARIES = {
    "bert": 30522,
    "distilbert": 30522,
    "albert": 30000,
    "electra": 30522,
    "modernbert": 50368,
    "gpt2": 50257,
    "opt": 50272,
    "llama": 32000,
    "mistral": 32000,
    "qwen2": 151936,
    "qwen3": 151936,
    "gemma": 256000,
    "t5": 32128,
    "bart": 50265,
}
"""Without it, a configuration takes as many as the data have words."""
ROBERTA_LARGE = {
    "model_type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
MT0_LARGE = {
    "model_type": "mt5",
    "vocab_size": 250112,
    "d_model": 1024,
    "d_ff": 2816,
    "num_layers": 24,
    "num_heads": 16,
}
OPT_6B = {
    "model_type": "opt",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "ffn_dim": 16384,
    "word_embed_proj_dim": 4096,
}
GPT2_LARGE = {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20}
BERT_CASED = {"model_type": "bert", "vocab_size": 28996}
T5_BASE = {"model_type": "t5", "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
HUNDRED = TaskFacts(name="look", inputs=("image",), output="label", labels=labels(101))
ADAPTERS: list[tuple[str, dict[str, Any], TaskFacts, MethodSettings, int, int | None]] = [
    # https://huggingface.co/docs/peft/quicktour; its total is of a release that did not tie the output layer
    ("mt0-large LoRA", MT0_LARGE, WRITE, own.method("LORA", r=8, target_modules=["q", "v"]), 2_359_296, None),
    # examples/int8_training/Finetune_opt_bnb_peft.ipynb of peft
    (
        "opt-6.7b LoRA",
        OPT_6B,
        WRITE,
        own.method("LORA", r=16, target_modules=["q_proj", "v_proj"]),
        8_388_608,
        6_666_862_592,
    ),
    # https://huggingface.co/docs/peft/task_guides/ptuning-seq-classification: the head included
    (
        "roberta-large P-tuning",
        ROBERTA_LARGE,
        TEXT,
        own.method("P_TUNING", num_virtual_tokens=20, encoder_hidden_size=128),
        1_351_938,
        None,
    ),
    # docstrings of peft.PeftModelForCausalLM, ...SequenceClassification and ...Seq2SeqLM
    (
        "gpt2-large prefix",
        GPT2_LARGE,
        WRITE,
        own.method("PREFIX_TUNING", num_virtual_tokens=20),
        1_843_200,
        775_873_280,
    ),
    ("bert-cased prefix", BERT_CASED, TEXT, own.method("PREFIX_TUNING", num_virtual_tokens=20), 370_178, None),
    ("t5-base LoRA", T5_BASE, WRITE, own.method("LORA", r=8, target_modules=["q", "v"]), 884_736, None),
    # https://huggingface.co/docs/peft/task_guides/image_classification_lora: 101 classes, the head included
    (
        "vit-base LoRA",
        {"model_type": "vit"},
        HUNDRED,
        own.method("LORA", r=16, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]),
        667_493,
        86_543_818,
    ),
]


@pytest.mark.parametrize(
    ("config", "task", "method", "trainable", "total"), [a[1:] for a in ADAPTERS], ids=[a[0] for a in ADAPTERS]
)
def test_adapters_of_the_librarys_documentation(
    config: dict[str, Any], task: TaskFacts, method: MethodSettings, trainable: int, total: int | None
) -> None:
    model = build(config, task, parts={"model": ""})
    counted = count_params(model, {"model": "A"}, own.put(model, {"model": "A"}, A=method))
    assert counted.trainable == trainable
    assert total in (None, counted.total)

"""Parameters of published models, and of adapters in peft's own documentation, counted on the meta device."""

from __future__ import annotations

from typing import Any

import pytest

from bench.models import hf
from bench.plugins.contracts import TaskFacts
from bench.plugins.settings import MethodSettings
from bench.training.params import count_params
from tests.models.hf import models as tiny
from tests.models.hf.models import ASK, WHOLE, WRITE


def classes(n: int, source: str) -> TaskFacts:
    return TaskFacts(name="label", inputs=(source,), output="label", labels=tuple(map(str, range(n))))  # type: ignore[arg-type]


def sizes(hidden_size: int, layers: int, heads: int, intermediate_size: int, **others: Any) -> dict[str, Any]:
    found = {"hidden_size": hidden_size, "num_hidden_layers": layers, "num_attention_heads": heads}
    return found | {"intermediate_size": intermediate_size, **others}


TEXT, IMAGE = classes(2, "text"), classes(1000, "image")
ENCODER, DECODER, BOTH = "embeddings encoder head", "embeddings decoder", "embeddings encoder decoder"
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
DEBERTA = {
    **sizes(768, 12, 12, 3072, vocab_size=128100, type_vocab_size=0, relative_attention=True, position_buckets=256),
    **{"norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"]},
    **{"position_biased_input": False, "pooler_hidden_size": 768},
}
BART = {f"{side}_{size}": n for side in ("encoder", "decoder") for size, n in (("layers", 6), ("attention_heads", 12))}
BART |= {"d_model": 768, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
MODELS: list[tuple[str, dict[str, Any], TaskFacts, int, str]] = [
    # As the Hub's repositories or the papers' tables have them, and what a head for two labels adds.
    ("bert", {}, TEXT, 109_482_240 + 1_538, ENCODER),
    ("roberta", ROBERTA, TEXT, 124_647_170, ENCODER),
    ("distilbert", {}, TEXT, 66_955_010, ENCODER),
    ("albert", sizes(768, 12, 12, 3072), TEXT, 11_683_584 + 1_538, ENCODER),
    ("electra", {}, TEXT, 13_549_314, ENCODER),
    ("deberta-v2", DEBERTA, TEXT, 184_423_682, ENCODER),
    ("modernbert", {}, TEXT, 149_606_402, ENCODER),
    ("gpt2", {}, WRITE, 124_439_808, DECODER),
    ("opt", {}, WRITE, 125_239_296, DECODER),
    ("gpt_neox", sizes(512, 6, 8, 2048, vocab_size=50304), WRITE, 70_426_624, f"{DECODER} head"),
    ("llama", {}, WRITE, 6_738_415_616, f"{DECODER} head"),
    ("mistral", {}, WRITE, 7_241_732_096, f"{DECODER} head"),
    ("qwen2", sizes(896, 24, 14, 4864, num_key_value_heads=2, **TIED), WRITE, 494_032_768, DECODER),
    ("qwen3", sizes(1024, 28, 16, 3072, num_key_value_heads=8, head_dim=128, **TIED), WRITE, 596_049_920, DECODER),
    ("gemma", sizes(2048, 18, 8, 16384, num_key_value_heads=1), WRITE, 2_506_172_416, DECODER),
    ("t5", {}, WRITE, 60_506_624, BOTH),
    ("bart", BART, WRITE, 139_420_416, BOTH),
    ("vit", {}, IMAGE, 86_567_656, ENCODER),
    ("deit", {}, IMAGE, 86_567_656 + 2 * 768, ENCODER),  # the library's has a distillation token
    ("swin", {}, IMAGE, 28_288_354, ENCODER),
    ("beit", {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}, IMAGE, 86_530_984, ENCODER),
    ("convnextv2", {}, IMAGE, 28_635_496, ENCODER),
    ("resnet", {}, IMAGE, 25_557_032, ENCODER),
    ("dinov2", {"image_size": 518, "patch_size": 14}, IMAGE, 86_580_480 + 2 * 768 * 1000 + 1000, ENCODER),
    ("blip", {"vision_config": {"image_size": 480}, "text_config": {"vocab_size": 30524}}, ASK, 361_478_972,
     f"{BOTH} head"),
]  # fmt: skip
VOCABULARIES = {"bert": 30522, "distilbert": 30522, "albert": 30000, "electra": 30522, "modernbert": 50368,
                "gpt2": 50257, "opt": 50272, "llama": 32000, "mistral": 32000, "qwen2": 151936, "qwen3": 151936,
                "gemma": 256000, "t5": 32128, "bart": 50265}  # fmt: skip
"""Without it, a configuration takes as many as the data have words."""


def build(model_type: str, config: dict[str, Any], task: TaskFacts, **changes: Any) -> Any:
    vocabulary = {} if "image" in task.inputs else {"vocab_size": VOCABULARIES.get(model_type, 0)}
    given = {"model_type": model_type, **vocabulary, **config}
    return tiny.build(hf.Settings(family="hf", config=given, **changes), task, ["?"], "meta")


@pytest.mark.parametrize(("model_type", "config", "task", "total", "names"), MODELS, ids=[each[0] for each in MODELS])
def test_default_parts_are_disjoint_and_together_the_published_model(
    model_type: str, config: dict[str, Any], task: TaskFacts, total: int, names: str
) -> None:
    model = build(model_type, config, task)
    parts = names.split()
    assert list(model.part_facts) == parts
    ids = [{id(p): p.numel() for p in model.part(part).parameters()} for part in parts]
    assert sum(sum(held.values()) for held in ids) == total
    assert len(set().union(*ids)) == sum(map(len, ids)) == len(list(model.module.parameters()))
    assert set(hf.parts(hf.Settings(family="hf", config={"model_type": model_type}), task)) >= set(parts)


LORA = {"r": 8, "target_modules": ["q", "v"]}
PREFIX = tiny.method("PREFIX_TUNING", num_virtual_tokens=20)
OPT = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "ffn_dim": 16384}
ADAPTERS: list[tuple[str, dict[str, Any], TaskFacts, MethodSettings, int, int | None]] = [
    # https://huggingface.co/docs/peft/quicktour; its total is of a release that did not tie the output layer
    ("mt5", {"vocab_size": 250112, "d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16}, WRITE,
     tiny.method("LORA", **LORA), 2_359_296, None),
    # examples/int8_training/Finetune_opt_bnb_peft.ipynb of peft
    ("opt", {**OPT, "word_embed_proj_dim": 4096}, WRITE,
     tiny.method("LORA", r=16, target_modules=["q_proj", "v_proj"]), 8_388_608, 6_666_862_592),
    # https://huggingface.co/docs/peft/task_guides/ptuning-seq-classification: the head included
    ("roberta", ROBERTA | sizes(1024, 24, 16, 4096), TEXT,
     tiny.method("P_TUNING", num_virtual_tokens=20, encoder_hidden_size=128), 1_351_938, None),
    # docstrings of peft.PeftModelForCausalLM, ...SequenceClassification and ...Seq2SeqLM
    ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}, WRITE, PREFIX, 1_843_200, 775_873_280),
    ("bert", {"vocab_size": 28996}, TEXT, PREFIX, 370_178, None),
    ("t5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, WRITE,
     tiny.method("LORA", **LORA), 884_736, None),
    # https://huggingface.co/docs/peft/task_guides/image_classification_lora: 101 classes, the head included
    ("vit", {}, classes(101, "image"),
     tiny.method("LORA", r=16, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]),
     667_493, 86_543_818),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "config", "task", "method", "trainable", "total"), ADAPTERS, ids=[each[0] for each in ADAPTERS]
)
def test_adapters_of_the_librarys_documentation(
    name: str, config: dict[str, Any], task: TaskFacts, method: MethodSettings, trainable: int, total: int | None
) -> None:
    model = build(name, config, task, parts=WHOLE)
    counted = count_params(model, {"model": "A"}, tiny.put(model, {"model": "A"}, A=method))
    assert counted.trainable == trainable
    assert total in (None, counted.total)

"""A field of a library's configuration names something of the part and has an effect, or is refused before training."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import peft
import pytest
import timm
import torch
from pydantic import TypeAdapter
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from bench.errors import SpecError
from bench.methods import peft_config
from bench.methods.common import library
from bench.models.common import parts
from bench.patches.peft import get_peft_model
from bench.plugins.contracts import PartFacts
from bench.spec.cell import target_lines
from bench.spec.sections import AnyMethod
from tests import factories
from tests.factories import load_cells

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODEL = PartFacts(
    name="model", task_type="CAUSAL_LM", targets={"lora": ALL}, architecture="llama", model_task_type="CAUSAL_LM"
)
BARE = PartFacts(name="part", task_type=None, targets={})
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


def on_meta(make: Any, config: Any) -> Any:
    with torch.device("meta"):
        return make(config)


def llama(**fields: Any) -> Any:
    return on_meta(LlamaForCausalLM, LlamaConfig(**SMALL | fields))


def settings(**fields: Any) -> peft_config.Settings:
    made = TypeAdapter(AnyMethod).validate_json(json.dumps(fields), strict=True)
    assert isinstance(made, peft_config.Settings)
    return made


def adapted(module: Any, part: PartFacts = MODEL, **fields: Any) -> Any:
    method = settings(**fields)
    peft_config.check(method, part)
    return get_peft_model(module, peft_config.config(method, part, module))


def trainable(wrapper: Any) -> int:
    return sum(p.numel() for p in wrapper.parameters() if p.requires_grad)


def on(wrapper: Any) -> set[str]:
    return set(wrapper.base_model.targeted_module_names)


def test_defaults_are_the_librarys_for_the_architecture() -> None:
    """LoRA r 32 on Llama-3.2-3B: 9,175,040, as Hugging Face's method comparison prints it."""
    sizes: dict[str, Any] = {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24}
    sizes |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192, "vocab_size": 128256}
    assert trainable(adapted(llama(**sizes), peft_type="LORA", r=32)) == 9_175_040
    assert peft_config.source(settings(peft_type="LORA"), MODEL) == "peft's defaults for llama"
    ia3 = adapted(llama(), peft_type="IA3").active_peft_config
    assert ia3.target_modules == {"k_proj", "v_proj", "down_proj"}
    assert ia3.feedforward_modules == {"down_proj"}


def test_where_the_library_has_none_the_familys_count_and_are_said() -> None:
    unknown = PartFacts(name="model", task_type="CAUSAL_LM", targets={"lora": ["gate_proj"]}, architecture="seed_oss")
    module = llama()
    module.config.model_type = "seed_oss"
    assert {name.rpartition(".")[2] for name in on(adapted(module, unknown, peft_type="LORA"))} == {"gate_proj"}
    assert "the model family's" in peft_config.source(settings(peft_type="LORA"), unknown)
    for named in ({"target_modules": ["q_proj"]}, {"targets": {"model": ["q_proj"]}}, {"target_parameters": ["x"]}):
        assert peft_config.source(settings(peft_type="LORA", **named), unknown) == ""


def test_a_part_has_the_defaults_of_the_model_that_it_is_of() -> None:
    """The language model of a LLaVA is a Llama; a part that has none of the library's modules has the family's."""
    small = LlavaConfig(text_config={"model_type": "llama", "num_hidden_layers": 1})
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(small)
    assert parts.architecture(llava, ("model.language_model.layers", "model.language_model.norm")) == "llama"
    assert parts.architecture(llava, ("model.vision_tower", "lm_head")) == "llava"
    assert parts.architecture(llava, ("",)) == "llava"
    assert parts.architecture(timm.create_model("resnet18"), ("layer1", "layer2")) is None
    head = PartFacts(name="head", task_type=None, targets={"lora": ["lm_head"]}, architecture="llama")
    assert on(adapted(parts.PartView(llama(), ["lm_head"]), head, peft_type="LORA")) == {"lm_head"}


def axis(frozen: str, adapted: str) -> str:
    return "[" + ", ".join(f"{{{frozen}: F, {adapted}: {name}, head: T}}" for name in "LIN") + "]"


def test_what_is_printed_first_says_whose_defaults_count(root: Path) -> None:
    own = ["methods={L: {peft_type: LORA}, I: {peft_type: IA3}, N: {peft_type: LORA, target_modules: [query]}}"]
    own.append("matrix.axes.parts=" + axis("stem", "blocks"))
    _, cells = load_cells(root / "specs/examples/image_classification.yaml", "default", sets=own)
    assert target_lines(cells) == ["target modules of L, I on blocks: the model family's defaults (peft has none here)"]
    own[1:] = ["matrix.axes.parts=" + axis("embeddings", "encoder")]
    _, cells = load_cells(root / "specs/examples/text_classification.yaml", "default", sets=own)
    assert target_lines(cells) == ["target modules of L, I on encoder: peft's defaults for bert"]
    assert target_lines(load_cells(root / "specs/table1.yaml")[1]) == [], "the paper's methods keep the paper's targets"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rank_pattern": {"q_prj": 4}}, "'q_prj' names no target module (rank_pattern); nearest: q_proj"),
        ({"alpha_pattern": {"layers.9.*": 4}}, "names no target module (alpha_pattern)"),
        ({"rank_pattern": {".*proj": 4, "q_proj": 2}}, "'q_proj' of rank_pattern has no effect"),
        ({"exclude_modules": ["k_proj"]}, "'k_proj' names no target module (exclude_modules); nearest: v_proj"),
        ({"exclude_modules": r".*layers\.7\..*"}, "names no target module (exclude_modules)"),
        ({"exclude_modules": ["q_proj", "v_proj"]}, "leaves nothing"),
        ({"target_modules": ["q_proj", "v_prj"]}, "'v_prj' names no module of part 'model' (target_modules)"),
        ({"target_modules": "q_proj"}, "names no module of part 'model' (target_modules)"),
        ({"target_parameters": ["experts.gate_up"]}, "names no parameter of part 'model' (target_parameters)"),
        ({"layers_to_transform": [0, 5]}, "no target module is in layer 5 (there are model.layers: 0 to 1)"),
        ({"layers_to_transform": 0, "layers_pattern": "layer"}, "set layers_pattern to one of layers"),
        ({"layers_pattern": "layers"}, "set it, or remove layers_pattern"),
        ({"use_qalora": True}, "quantised by GPTQ"),
        ({"qalora_group_size": 8}, "unless use_qalora is True"),
        ({"alora_invocation_tokens": [3]}, "put into no prompt"),
        ({"trainable_token_indices": [64]}, "there is no token 64; the embedding has rows 0 to 63"),
        ({"trainable_token_indices": {"embd_tokens": [1]}}, "nearest: embed_tokens"),
        ({"modules_to_save": ["lm_hed"]}, "nearest: lm_head"),
        ({"eva_config": {"rho": 1.5}}, "eva_config would have no effect"),
        ({"peft_type": "ADALORA", "total_step": 9, "rank_pattern": {"q_proj": 2}}, "ADALORA does not use rank_pattern"),
        ({"peft_type": "IA3", "feedforward_modules": ["up_proj"]}, "names no target module (feedforward_modules)"),
        ({"peft_type": "TRAINABLE_TOKENS", "token_indices": [99]}, "there is no token 99"),
    ],
)
def test_what_names_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        adapted(llama(), **{"peft_type": "LORA"} | fields)
    assert words in str(caught.value)


def test_what_names_something_has_its_effect() -> None:
    plain = trainable(adapted(llama(), peft_type="LORA"))
    assert trainable(adapted(llama(), peft_type="LORA", rank_pattern={"q_proj": 4})) < plain
    assert trainable(adapted(llama(), peft_type="LORA", exclude_modules=["layers.0.self_attn.q_proj"])) < plain
    every = {f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("q_proj", "v_proj")}
    assert on(adapted(llama(), peft_type="LORA", layers_to_transform=1)) == {n for n in every if ".1." in n}
    first = adapted(llama(), peft_type="LORA", target_modules="all-linear", layers_to_transform=[0])
    assert {name.rpartition(".")[2] for name in on(first)} == set(ALL)
    assert all(".layers.0." in name for name in on(first))


NOT_NAMES = {
    "adapters",  # folders, which the library opens
    "base_model_tp_plan",
    "cpt_mask",
    "cpt_tokens_type_mask",  # of the tokens named beside them
    "layer_replication",  # the library raises for a layer that there is not
    "loftq_config",
    "megatron_config",
    "runtime_config",
    "tokenizer_kwargs",
}
"""Fields with lists or mappings that name nothing of a model."""
BOGUS = {
    "layers_to_transform": [99],
    "trainable_token_indices": [10**6],
    "token_indices": [10**6],
    "cpt_token_ids": [10**6],
    "alora_invocation_tokens": [1],
    "target_svd_config": {"nope": 2},
}


def _holds_names(annotation: Any) -> bool:
    options = typing.get_args(annotation) or (annotation,)
    return any(option in (list, dict, set) or typing.get_origin(option) in (list, dict, set) for option in options)


def fields_that_name() -> list[tuple[str, str]]:
    """Of every type of the installed library, so that one which a new release adds fails here until it is checked."""
    found = []
    for name in library.types():
        for field, own in library.method(name).own_fields.items():
            if _holds_names(own.annotation) and field not in NOT_NAMES:
                found.append((name, field))
    return found


def test_every_field_that_names_something_is_checked_for_every_type() -> None:
    wrong = []
    module = llama()
    required: dict[str, Any] = {"token_indices": [1], "adapters": {"a": "b"}, "total_step": 9}
    for name, field in fields_that_name():
        own = library.method(name).own_fields
        given = {key: value for key, value in required.items() if key in own}
        given |= {"cpt_token_ids": [1], "cpt_mask": [1], "cpt_tokens_type_mask": [1]} if name == "CPT" else {}
        value = BOGUS.get(field, {"nope": 2} if field.endswith("_pattern") and field != "layers_pattern" else ["nope"])
        try:
            method = settings(peft_type=name, **given | {field: value})
            peft_config.check(method, MODEL)
            peft_config.config(method, MODEL, module)
        except SpecError:
            continue
        except (ValueError, TypeError):  # the library's own check
            continue
        wrong.append((name, field))
    assert len(fields_that_name()) > 100
    assert not wrong


def test_layers_of_a_hierarchical_model_say_which_stages_they_mean() -> None:
    sizes: dict[str, Any] = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4}
    swin = on_meta(SwinForImageClassification, SwinConfig(**sizes, depths=[2, 2], num_heads=[2, 2]))
    targets = [name for name in ("query", "q_proj") if any(n.endswith(f".{name}") for n, _ in swin.named_modules())]
    lora = {"peft_type": "LORA", "target_modules": targets, "layers_to_transform": [1]}
    with pytest.raises(
        SpecError, match=r"may count swin\.encoder\.layers or, inside each, blocks; layers_pattern: layers"
    ):
        adapted(swin, BARE, **lora)
    with pytest.raises(SpecError, match=r"counted anew in each of swin\.encoder\.layers\.0\.blocks"):
        adapted(swin, BARE, layers_pattern="blocks", **lora)
    stage = on(adapted(swin, BARE, layers_pattern="layers", **lora))
    assert len(stage) == 2
    assert all(name.startswith("swin.encoder.layers.1.") for name in stage)
    resnet = timm.create_model("resnet18")
    with pytest.raises(SpecError, match="counted anew in each of layer1, layer2, layer3, layer4"):
        adapted(resnet, BARE, peft_type="LORA", target_modules=["conv1"], layers_to_transform=[0])


def test_layers_of_encoder_and_decoder_are_blocks_not_what_is_in_them() -> None:
    """Each block of T5 has a numbered list of its own, which an earlier peft counted instead."""
    t5 = on_meta(T5ForConditionalGeneration, T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=3))
    part = PartFacts(name="model", task_type="SEQ_2_SEQ_LM", targets={}, architecture="t5")
    found = on(adapted(t5, part, peft_type="LORA", layers_to_transform=[1]))
    assert {re.sub(r"\.layer\..*", "", name) for name in found} == {"encoder.block.1", "decoder.block.1"}


def test_a_pasted_task_type_is_checked_against_the_part() -> None:
    assert trainable(adapted(llama(), peft_type="LORA", task_type="CAUSAL_LM")) == trainable(
        adapted(llama(), peft_type="LORA")
    )
    decoder = PartFacts(name="decoder", task_type=None, targets={}, architecture="llama", model_task_type="CAUSAL_LM")
    view = parts.PartView(llama(), ["model.layers"])
    assert len(on(adapted(view, decoder, peft_type="LORA", task_type="CAUSAL_LM"))) == 4
    with pytest.raises(SpecError, match="task_type is SEQ_CLS, and the model's is CAUSAL_LM"):
        adapted(view, decoder, peft_type="LORA", task_type="SEQ_CLS")
    with pytest.raises(SpecError, match="this model has none in the library; remove task_type"):
        adapted(view, BARE, peft_type="LORA", target_modules=["q_proj"], task_type="SEQ_CLS")


@pytest.mark.parametrize("name", ["PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"])
def test_the_shape_of_another_model_is_refused_or_left_out(name: str, tmp_path: Path) -> None:
    """Ten virtual tokens are 640 numbers in a two-layer Llama, not the 10,240 of the model that was saved."""
    prompt: dict[str, Any] = {"peft_type": name, "num_virtual_tokens": 10}
    own = trainable(adapted(llama(), **prompt))
    assert name != "PREFIX_TUNING" or own == 640
    for field, value in {"num_layers": 32, "token_dim": 48, "num_attention_heads": 7}.items():
        with pytest.raises(SpecError, match=f"{field} is {value}, and this part's is .*set {field}: null"):
            adapted(llama(), **prompt | {field: value})
    larger: Any = peft.get_peft_config(
        {**prompt, "task_type": "CAUSAL_LM", "num_layers": 32, "token_dim": 16, "num_attention_heads": 2}
    )
    larger.save_pretrained(str(tmp_path))
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    assert content["num_layers"] == 32
    assert trainable(adapted(llama(), adapter_config=str(tmp_path))) == own


def test_an_initialisation_that_is_not_made_is_refused() -> None:
    method = settings(peft_type="LORA", init_lora_weights="eva")
    with pytest.raises(SpecError, match="wants a pass over data"):
        peft_config.finish(method, get_peft_model(llama(), peft_config.config(method, MODEL, llama())))


def test_the_papers_methods_keep_their_targets() -> None:
    lora = factories.plugin("methods", "lora")
    assert lora.config(lora.Settings(type="lora"), MODEL, llama()).target_modules == set(ALL)

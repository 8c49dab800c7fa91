"""The methods that train some of a part's own tensors select what the literature calls so, on several architectures."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from bench import registry
from bench.errors import SpecError
from bench.protocols import PartFacts

PART = PartFacts(name="net", task_type=None, targets={})
SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}


def bert(model: Any = BertModel) -> torch.nn.Module:
    with torch.device("meta"):
        made: torch.nn.Module = model(BertConfig(vocab_size=20, **SIZES))
    return made


def select(type_: str, module: torch.nn.Module, part: PartFacts = PART, **fields: Any) -> set[str]:
    plugin = registry.load("methods", type_)
    settings = plugin.Settings(type=type_, **fields)
    plugin.check(settings, part)
    names: set[str] = plugin.select(settings, part, module)
    assert names <= {name for name, _ in module.named_parameters()}
    return names


def test_bitfit_of_bert_base_trains_what_the_paper_counts() -> None:
    """Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199: 0.09 % of BERT-large and BERT-base, 0.1 M tensors."""
    with torch.device("meta"):
        model = BertModel(BertConfig(), add_pooling_layer=False)
    names = select("bitfit", model)
    trained = sum(model.get_parameter(name).numel() for name in names)
    assert 100 * trained / sum(p.numel() for p in model.parameters()) == pytest.approx(0.09, abs=0.005)


def test_bitfit_of_named_modules() -> None:
    assert select("bitfit", bert(), targets={"net": ["query"]}) == {
        f"encoder.layer.{i}.attention.self.query.bias" for i in range(3)
    }
    with pytest.raises(SpecError, match=r"'querry' names no module of part 'net'; nearest: query"):
        select("bitfit", bert(), targets={"net": ["querry"]})
    with pytest.raises(SpecError, match="no bias"):
        select("bitfit", torch.nn.Linear(2, 2, bias=False))


def test_norm_layers_of_every_kind() -> None:
    names = select("norm_layers", bert())
    assert len(names) == 2 * (1 + 2 * 3)
    assert all(".LayerNorm." in name for name in names)
    with torch.device("meta"):
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=20, **SIZES))
        resnet = timm.create_model("resnet18")
        seq2seq = T5ForConditionalGeneration(
            T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        )
    assert len(select("norm_layers", llama)) == 2 * 3 + 1
    assert len(select("norm_layers", resnet)) == 2 * 20
    assert len(select("norm_layers", seq2seq)) == 2 * 2 + 1 + 2 * 3 + 1
    assert select("norm_layers", bert(), targets={"net": ["embeddings"]}) == {
        "embeddings.LayerNorm.weight",
        "embeddings.LayerNorm.bias",
    }
    with pytest.raises(SpecError, match="no normalisation layer"):
        select("norm_layers", torch.nn.Linear(2, 2))


def blocks(names: set[str], stack: str) -> set[str]:
    assert all(name.startswith(stack) for name in names)
    return {name.removeprefix(stack).split(".")[0] for name in names}


def test_last_blocks_are_found_by_shape() -> None:
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=4, n_head=2))
        vit = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **SIZES))
        timm_vit = timm.create_model("vit_tiny_patch16_224", depth=3)
    assert blocks(select("last_blocks", bert(), k=2), "encoder.layer.") == {"1", "2"}
    assert blocks(select("last_blocks", gpt2, k=1), "transformer.h.") == {"3"}
    assert blocks(select("last_blocks", timm_vit, k=1), "blocks.") == {"2"}
    assert len({name.split(".")[:4][-1] for name in select("last_blocks", vit, k=3)}) >= 1
    whole = {name for name, _ in bert().named_parameters() if name.startswith("encoder.layer.")}
    assert select("last_blocks", bert(), k=3) == whole


def test_last_blocks_of_a_named_stack_and_of_several() -> None:
    with torch.device("meta"):
        seq2seq = T5ForConditionalGeneration(
            T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        )
    names = select("last_blocks", seq2seq, k=1)
    assert {name.split(".block.")[0] for name in names} == {"encoder", "decoder"}
    assert blocks(select("last_blocks", seq2seq, k=1, targets={"net": ["decoder.block"]}), "decoder.block.") == {"1"}
    with pytest.raises(SpecError, match=r"k is 4, but encoder\.layer has 3 blocks"):
        select("last_blocks", bert(), k=4)
    with pytest.raises(SpecError, match=r"targets: \{net: \[...\]\}"):
        select("last_blocks", torch.nn.Linear(2, 2), k=1)


def test_the_head_by_custom_by_family_and_by_name() -> None:
    assert select("head", bert(BertForSequenceClassification)) == {"classifier.weight", "classifier.bias"}
    family = PartFacts(name="net", task_type=None, targets={"head": ["pooler"]})
    assert select("head", bert(), family) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert select("head", bert(), targets={"net": ["pooler"]}) == {"pooler.dense.weight", "pooler.dense.bias"}
    with pytest.raises(SpecError, match="no head was found"):
        select("head", bert())


def test_a_tied_head_is_trained_under_the_embeddings_name() -> None:
    names = select("head", bert(BertForMaskedLM))
    assert "bert.embeddings.word_embeddings.weight" in names
    assert not any(name.startswith("bert.encoder") for name in names)


def test_a_subset_by_patterns() -> None:
    names = select("subset", bert(), include=["encoder.layer.0.*", "*.bias"], exclude=["*LayerNorm*"])
    assert "encoder.layer.0.attention.self.query.weight" in names
    assert "encoder.layer.2.attention.self.query.bias" in names
    assert "encoder.layer.2.attention.self.query.weight" not in names
    assert not any("LayerNorm" in name for name in names)
    assert select("subset", bert()) == {name for name, _ in bert().named_parameters()}


def test_a_pattern_that_means_nothing_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'pooler\.dense\.wieght' names no parameter of part 'net'; nearest: .*weight"):
        select("subset", bert(), include=["pooler.dense.wieght"])
    with pytest.raises(SpecError, match=r"'\*\.bais' names no parameter"):
        select("subset", bert(), exclude=["*.bais"])
    with pytest.raises(SpecError, match=r"'\*atention\*' names no parameter of part 'net'; nearest: .*attention"):
        select("subset", bert(), include=["*atention*"])
    with pytest.raises(SpecError, match="nothing would be trained"):
        select("subset", bert(), include=["*.bias"], exclude=["*"])
    with pytest.raises(SpecError, match="use include and exclude"):
        select("subset", bert(), targets={"net": ["pooler"]})

"""The methods that train some of a part's own tensors select what the literature calls so, on several architectures."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

from bench.errors import SpecError
from bench.plugins.contracts import PartFacts
from tests import factories

PART = PartFacts(name="net", task_type=None, targets={})
SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}


def bert(model: Any = BertModel) -> torch.nn.Module:
    with torch.device("meta"):
        made: torch.nn.Module = model(BertConfig(vocab_size=20, **SIZES))
    return made


def select(type_: str, module: torch.nn.Module, part: PartFacts = PART, **fields: Any) -> set[str]:
    plugin = factories.plugin("methods", type_)
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


def test_last_blocks_of_transformers_models() -> None:
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=4, n_head=2))
        vit = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **SIZES))
        one = BertModel(BertConfig(vocab_size=20, **SIZES | {"num_hidden_layers": 1}))
        albert = AlbertModel(AlbertConfig(vocab_size=20, **SIZES))
        mixture = MixtralForCausalLM(MixtralConfig(vocab_size=20, num_local_experts=4, **SIZES))
    assert blocks(select("last_blocks", bert(), k=2), "encoder.layer.") == {"1", "2"}
    assert blocks(select("last_blocks", gpt2, k=1), "transformer.h.") == {"3"}
    assert blocks(select("last_blocks", one, k=1), "encoder.layer.") == {"0"}
    assert blocks(select("last_blocks", mixture, k=1), "model.layers.") == {"2"}
    assert blocks(select("last_blocks", albert, k=1), "encoder.albert_layer_groups.0.albert_layers.") == {"0"}
    assert len({name.split(".")[:4][-1] for name in select("last_blocks", vit, k=3)}) >= 1
    whole = {name for name, _ in bert().named_parameters() if name.startswith("encoder.layer.")}
    assert select("last_blocks", bert(), k=3) == whole


LAST = {
    "resnet18": ["layer4.0.", "layer4.1."],
    "regnety_002": ["s4.b6.", "s4.b7."],
    "densenet121": ["features.denseblock4.denselayer15.", "features.denseblock4.denselayer16."],
    "hrnet_w18_small": ["incre_modules.2.0.", "incre_modules.3.0."],
    "swin_tiny_patch4_window7_224": ["layers.3.blocks.0.", "layers.3.blocks.1."],
    "convnext_tiny": ["stages.3.blocks.1.", "stages.3.blocks.2."],
    "vit_tiny_patch16_224": ["blocks.10.", "blocks.11."],
    "vit_small_patch16_18x2_224": ["blocks.16.", "blocks.17."],  # of attentions side by side
    "cait_xxs24_224": ["blocks_token_only.0.", "blocks_token_only.1."],
    "efficientnet_b0": ["blocks.5.3.", "blocks.6.0."],  # a stage of one
    "mobilevit_xxs": ["stages.4.1.transformer.1.", "stages.4.1.transformer.2."],
    "inception_resnet_v2": ["repeat_2.8.", "block8."],
    "xception41": ["blocks.11.", "blocks.12."],  # not the depthwise convolutions in them
    "dm_nfnet_f0": ["stages.3.1.", "stages.3.2."],  # without normalisation
}


@pytest.mark.parametrize("architecture", LAST)
def test_last_blocks_are_the_last_two_in_order_of_execution(architecture: str) -> None:
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture)
    except NotImplementedError:  # PyTorch 2.11 has no unique values of meta tensors
        model = timm.create_model(architecture)
    last = tuple(LAST[architecture])
    assert select("last_blocks", model, k=2) == {n for n, _ in model.named_parameters() if n.startswith(last)}


def test_last_blocks_of_stages_of_transformers_models() -> None:
    with torch.device("meta"):
        swin = SwinModel(SwinConfig(embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=4))
        resnet = ResNetModel(ResNetConfig(depths=[2, 1], hidden_sizes=[8, 16], embedding_size=8))
    assert blocks(select("last_blocks", swin, k=1), "encoder.layers.1.blocks.") == {"0"}
    assert {".".join(name.split(".")[:5]) for name in select("last_blocks", swin, k=2)} == {
        "encoder.layers.0.blocks.1",
        "encoder.layers.1.blocks.0",
    }
    assert blocks(select("last_blocks", resnet, k=1), "encoder.stages.1.layers.") == {"0"}


def test_last_blocks_of_several_stacks_and_of_a_named_one() -> None:
    with torch.device("meta"):
        seq2seq = T5ForConditionalGeneration(
            T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        )
    assert blocks(select("last_blocks", seq2seq, k=1), "decoder.block.") == {"1"}
    names = {".".join(name.split(".")[:3]) for name in select("last_blocks", seq2seq, k=3)}
    assert names == {"encoder.block.1", "decoder.block.0", "decoder.block.1"}
    assert blocks(select("last_blocks", seq2seq, k=1, targets={"net": ["encoder.block"]}), "encoder.block.") == {"1"}
    with pytest.raises(SpecError, match="k is 4, but there are 3 blocks"):
        select("last_blocks", bert(), k=4)
    with pytest.raises(SpecError, match=r"targets: \{net: \[...\]\}"):
        select("last_blocks", torch.nn.Linear(2, 2), k=1)
    plain = timm.create_model("vgg11")
    assert select("last_blocks", plain, k=1, targets={"net": ["features"]}) == {
        "features.18.weight",
        "features.18.bias",
    }


def test_tensors_are_chosen_by_what_they_are() -> None:
    """Classes may be called anything: a block of a norm-free network is no norm, a norm by another name is one."""

    class Stable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.eps = 1e-6
            self.scale, self.shift = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.zeros(3))

    module = torch.nn.ModuleDict({"a": Stable(), "rnn": torch.nn.LSTM(2, 3), "linear": torch.nn.Linear(2, 2)})
    assert select("norm_layers", module) == {"a.scale", "a.shift"}
    assert select("bitfit", module) == {"a.shift", "rnn.bias_ih_l0", "rnn.bias_hh_l0", "linear.bias"}
    with torch.device("meta"):
        free = timm.create_model("dm_nfnet_f0")
        tables = timm.create_model("levit_128s")
        beit = timm.create_model("beit_base_patch16_224", depth=1)
    with pytest.raises(SpecError, match="no normalisation layer"):
        select("norm_layers", free)
    assert not any("attention_biases" in name for name in select("bitfit", tables)), "a table of positions"
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= select("bitfit", beit)


def test_what_is_outside_the_base_model_is_the_head() -> None:
    with torch.device("meta"):
        t5 = T5ForSequenceClassification(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=1))
    assert {name.partition(".")[0] for name in select("head", t5)} == {"classification_head"}


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

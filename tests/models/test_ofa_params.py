"""OFA's parameter counts on the meta device: BiomedGPT-Tiny group by group, and the adapters on its decoder.

The counts of the groups follow from the released checkpoints' shapes (OFA-Sys/OFA, taokz/BiomedGPT: ``ofa_tiny``).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import nn

from bench import registry
from bench.models import ofa
from bench.models.ofa.model import OfaModel
from bench.plugins.settings import MethodSettings
from bench.training.adapt import adapt
from bench.training.params import count_params


@pytest.fixture(scope="module")
def tiny() -> OfaModel:
    return build()


def build(**changes: Any) -> OfaModel:
    return ofa.build(ofa.Settings(family="ofa", **changes), texts=["yes no"], device="meta")


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def tables(stack: Any) -> list[nn.Module]:
    return [stack.token_rel_pos_table_list, stack.image_rel_pos_table_list]


def test_tiny_has_the_parameters_of_biomedgpt_tiny(tiny: OfaModel) -> None:
    assert count(tiny.module) == 33_488_336
    assert count(tiny.module.embed_tokens) == 15_220_992
    assert {part: count(tiny.part(part)) for part in ofa.PARTS} == {"encoder": 12_942_592, "decoder": 5_324_752}


def test_groups_of_the_encoder(tiny: OfaModel) -> None:
    encoder = tiny.module.encoder
    norms = (encoder.layernorm_embedding, encoder.patch_layernorm_embedding, encoder.layer_norm)
    groups = {
        "resnet": count(encoder.embed_images),
        "image_proj": count(encoder.image_proj),
        "layers": count(encoder.layers),
        "positions": count(encoder.embed_positions, encoder.embed_image_positions),
        "pos_q, pos_k": count(encoder.pos_q_linear, encoder.pos_k_linear),
        "tables": count(*tables(encoder)),
        "norms and types": count(*norms, encoder.pos_ln, encoder.image_pos_ln, encoder.type_embedding),
    }
    assert groups == {
        "resnet": 8_543_296,
        "image_proj": 262_400,
        "layers": 3_169_296,
        "positions": 714_496,
        "pos_q, pos_k": 131_584,
        "tables": 118_448,
        "norms and types": 3_072,
    }
    assert sum(groups.values()) == 12_942_592


def test_groups_of_the_decoder(tiny: OfaModel) -> None:
    decoder = tiny.module.decoder
    norms = (decoder.layernorm_embedding, decoder.code_layernorm_embedding, decoder.layer_norm)
    own, cross = (
        (decoder.self_pos_q_linear, decoder.self_pos_k_linear),
        (
            decoder.cross_pos_q_linear,
            decoder.cross_pos_k_linear,
        ),
    )
    groups = {
        "layers": count(decoder.layers),
        "positions": count(decoder.embed_positions, decoder.embed_image_positions),
        "pos_q, pos_k": count(*own, *cross),
        "tables": count(*tables(decoder)),
        "norms": count(*norms, decoder.pos_ln, decoder.image_pos_ln),
    }
    assert groups == {
        "layers": 4_226_080,
        "positions": 714_496,
        "pos_q, pos_k": 263_168,
        "tables": 118_448,
        "norms": 2_560,
    }
    assert sum(groups.values()) == 5_324_752


@pytest.mark.parametrize(("preset", "total"), [("small", 92_892_000), ("base", 182_238_536)])
def test_larger_ones_have_the_published_sizes(preset: str, total: int) -> None:
    """BiomedGPT's 93 M and 182 M."""
    assert count(build(preset=preset).module) == total


def test_micro_is_small() -> None:
    assert count(build(preset="micro").module) < 1_000_000


@pytest.mark.parametrize(
    ("method", "fields", "trainable"),
    [
        ("lora", {"r": 8}, 65_536),
        ("ia3", {}, 8_192),
        ("prefix", {"num_virtual_tokens": 10}, 594_688),
        ("ptuning_v2", {"num_virtual_tokens": 1}, 2_048),
        ("ptuning_v2", {"num_virtual_tokens": 10}, 20_480),
    ],
)
def test_adapters_of_the_decoder(tiny: OfaModel, method: str, fields: dict[str, Any], trainable: int) -> None:
    model = copy.deepcopy(tiny)
    methods: dict[str, MethodSettings] = {"X": registry.load("methods", method).Settings(type=method, **fields)}
    parts = {"encoder": "F", "decoder": "X"}
    adapters = adapt(model, ofa.PARTS, parts, methods)
    params = count_params(model, parts, adapters)
    assert (params.trainable, params.total) == (trainable, 33_488_336 + trainable)


@pytest.mark.parametrize(
    ("embedding", "parts", "trainable"),
    [
        ("frozen", {"encoder": "T", "decoder": "T"}, 18_267_344),
        ("encoder", {"encoder": "T", "decoder": "T"}, 33_488_336),
        ("encoder", {"encoder": "T", "decoder": "F"}, 28_163_584),
        ("decoder", {"encoder": "F", "decoder": "T"}, 20_545_744),
    ],
)
def test_the_embedding_is_trained_with_the_part_it_belongs_to(
    embedding: str, parts: dict[str, str], trainable: int
) -> None:
    model = build(embedding=embedding)
    adapters = adapt(model, ofa.PARTS, parts, {})
    assert count_params(model, parts, adapters).trainable == trainable
    assert count(model.module) == 33_488_336

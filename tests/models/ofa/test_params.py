"""OFA's parameter counts on the meta device: those of the released checkpoints (OFA-Sys/OFA, taokz/BiomedGPT:
``ofa_tiny``), and of adapters on the decoder."""

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


def test_tiny_has_the_parameters_of_biomedgpt_tiny(tiny: OfaModel) -> None:
    assert count(tiny.module) == 33_488_336
    assert count(tiny.module.embed_tokens) == 15_220_992
    assert {part: count(tiny.part(part)) for part in ofa.PARTS} == {"encoder": 12_942_592, "decoder": 5_324_752}


@pytest.mark.parametrize(("preset", "total"), [("small", 92_892_000), ("base", 182_238_536)])
def test_larger_ones_have_the_published_sizes(preset: str, total: int) -> None:
    """BiomedGPT's 93 M and 182 M."""
    assert count(build(preset=preset).module) == total


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

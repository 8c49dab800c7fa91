"""Parameters of MISS, OFA and timm, counted on the meta device: published sizes, adapters, the MILE paper's tables."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from bench import registry
from bench.methods import lora
from bench.models import miss, ofa, timm
from bench.plugins.settings import MethodSettings
from bench.spec.cell import expand
from bench.spec.load import read_spec
from bench.training.adapt import adapt
from bench.training.params import count_params
from tests.models.timm.models import built, task


def build(family: Any, **changes: Any) -> Any:
    settings = family.Settings.model_validate({"family": family.__name__.rpartition(".")[2], **changes})
    return family.build(settings, texts=["yes no"], device="meta")


@pytest.fixture(scope="module")
def base() -> Any:
    return build(miss, preset="base")


@pytest.fixture(scope="module")
def tiny() -> Any:
    return build(ofa)


def count(*modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_base_has_the_parameters_of_miss(base: Any) -> None:
    assert count(base.module) == 361_478_972
    assert {p: count(base.part(p)) for p in miss.PARTS} == {"vit": 86_339_328, "jtm": 137_258_496, "dec": 137_881_148}


@pytest.mark.parametrize(("table", "rows"), [(1, 10), (2, 4), (3, 5), (4, 4)])
def test_share_of_trained_parameters_is_the_papers(base: Any, root: Path, table: int, rows: int) -> None:
    resolved = read_spec(root / f"specs/table{table}.yaml").resolve("paper")
    assert resolved.spec.published is not None
    cells, published = expand(resolved), resolved.spec.published.rows
    assert len(cells) == rows
    for cell, row in zip(cells, published, strict=True):
        model = copy.deepcopy(base)
        adapters = adapt(model, miss.PARTS, cell.parts, cell.methods)
        assert f"{count_params(model, cell.parts, adapters).pct:.3f}" == f"{float(row['params']):.3f}", cell.label


def test_tiny_has_the_parameters_of_biomedgpt_tiny(tiny: Any) -> None:
    """Of the released checkpoint (OFA-Sys/OFA, taokz/BiomedGPT: ``ofa_tiny``)."""
    assert count(tiny.module) == 33_488_336
    assert count(tiny.module.embed_tokens) == 15_220_992
    assert {part: count(tiny.part(part)) for part in ofa.PARTS} == {"encoder": 12_942_592, "decoder": 5_324_752}


@pytest.mark.parametrize(("preset", "total"), [("small", 92_892_000), ("base", 182_238_536)])
def test_larger_ones_have_the_published_sizes(preset: str, total: int) -> None:
    """BiomedGPT's 93 M and 182 M."""
    assert count(build(ofa, preset=preset).module) == total


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
def test_adapters_of_the_decoder(tiny: Any, method: str, fields: dict[str, Any], trainable: int) -> None:
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
    model = build(ofa, embedding=embedding)
    adapters = adapt(model, ofa.PARTS, parts, {})
    assert count_params(model, parts, adapters).trainable == trainable
    assert count(model.module) == 33_488_336


@pytest.mark.parametrize(
    ("architecture", "published", "exact"),
    [
        # millions: timm's results tables, https://github.com/huggingface/pytorch-image-models/tree/main/results
        # the same to the last parameter: what torchvision prints for its models of that name,
        # https://docs.pytorch.org/vision/stable/models.html#table-of-all-available-classification-weights
        ("vit_base_patch16_224", 86.57, 86_567_656),
        ("resnet50", 25.56, 25_557_032),
        ("resnet18", 11.69, 11_689_512),
        ("convnext_tiny", 28.59, 28_589_128),
        ("swin_tiny_patch4_window7_224", 28.29, 28_288_354),
        ("deit_small_patch16_224", 22.05, None),
        ("efficientnet_b0", 5.29, 5_288_548),
        ("mobilenetv3_small_100", 2.54, 2_542_856),
        ("densenet121", 7.98, 7_978_856),
        ("inception_v3", 23.83, None),
        ("poolformer_s12", 11.92, None),
    ],
)
def test_published_sizes_and_parts_that_add_up(architecture: str, published: float, exact: int | None) -> None:
    model = built(architecture, "meta", task(tuple(map(str, range(1000)))))
    total = sum(p.numel() for p in model.module.parameters())
    assert round(total / 1e6, 2) == published
    assert exact is None or total == exact
    params = count_params(model, dict.fromkeys(timm.PARTS, "F"), {})
    assert sum(part.total for part in params.by_part.values()) == params.total == total
    assert all(part.total for part in params.by_part.values())


def test_lora_on_a_poolformer_counts_what_peft_prints() -> None:
    """PEFT's guide to custom models, https://huggingface.co/docs/peft/developer_guides/custom_models#timm-models: r=8
    on the feed-forward convolutions, and the classifier of the 6 classes that its count implies: it prints
    "trainable params: 1,064,454 || all params: 56,467,974 || trainable%: 1.88505789139876".
    """
    parts = {"stem": "F", "blocks": "LoRA", "head": "T"}
    model = built("poolformer_m36", "meta", task(tuple("abcdef")))
    method = lora.Settings(type="lora", targets={"blocks": r".*\.mlp\.fc\d"})
    params = count_params(model, parts, adapt(model, model.part_facts, parts, {"LoRA": method}))
    assert (params.trainable, params.total) == (1_064_454, 56_467_974)
    assert params.pct == pytest.approx(1.88505789139876, abs=1e-13)

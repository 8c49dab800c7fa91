"""One architecture of every file of timm: parts, default targets, and a look at what runs that leaves no trace."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import timm
import torch
from timm.models import is_model_in_modules, list_modules

from bench.errors import SpecError
from bench.methods import lora
from bench.models import timm as family
from bench.models.common import parts as _parts
from bench.models.timm import builder
from bench.models.timm.model import TimmModel
from bench.training.adapt import adapt
from tests.models.timm.models import built

SMALL = {"sequencer": "sequencer2d_s", "iformer": "iformer_t", "gemma4_vit": "gemma4_vit_167m"}
"""Where the first one takes long to build."""
NAMED = (
    "inception_next_tiny",
    "swiftformer_s",
    "nextvit_small",
    "lowformer_b0",
    "efficientformer_l1",
    "fastvit_t8",
    "coatnet_0_224",
    "skresnet18",
)
"""Whose few linear layers hold a small share of the weights, or that have dilated convolutions."""


@cache
def architectures() -> dict[str, str]:
    """File -> the architecture in it with the shortest name, which is a small one as a rule."""
    names = timm.list_models()
    found = {}
    for module in list_modules():
        own = [name for name in names if is_model_in_modules(name, [module])]
        if own:
            found[module] = SMALL.get(module) or min(own, key=lambda name: (len(name), name))
    return found


def covered(model: TimmModel, calls: _parts.Calls) -> float:
    """Share of the weights in front of the classifier's own layers that LoRA's default targets have."""
    targets = model.part_facts["blocks"].targets["lora"]
    total = chosen = 0
    for name, own in model.part("blocks").named_modules():
        meant = any(name == target or name.endswith(f".{target}") for target in targets)
        assert not (meant and own in calls.classifier), f"{name} is one of the classifier's own layers"
        sizes = {leaf: p.numel() for leaf, p in own.named_parameters(recurse=False) if p.ndim > 1}
        total += 0 if own in calls.classifier else sum(sizes.values())
        chosen += sizes.get("weight", 0) if meant else 0
    return chosen / total


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[_parts.Calls]:
    """Of the models that are built; every look leaves all tensors in their places."""
    found: list[_parts.Calls] = []
    trace = _parts.modules_called

    def checked(model: torch.nn.Module, *args: Any) -> _parts.Calls:
        before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
        found.append(trace(model, *args))
        assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before
        return found[-1]

    monkeypatch.setattr(_parts, "modules_called", checked)
    return found


def check(file: str, model: TimmModel, calls: _parts.Calls) -> None:
    """Parts are disjoint and together the whole; tokens and tables of positions are in the stem; the head has as many
    outputs as there are labels; LoRA's default targets have at least half of the trunk's weights."""
    parts = {part: list(model.part(part).parameters()) for part in family.PARTS}
    every = [id(p) for own in parts.values() for p in own]
    assert len(every) == len(set(every)), file
    assert set(every) == {id(p) for p in model.module.parameters()}, file
    assert all(parts.values()), file
    assert sum(p.numel() for p in parts["head"]) % 3 == 0, file
    for part in ("blocks", "head"):
        names = [name.rpartition(".")[2] for name, _ in model.part(part).named_parameters()]
        assert not [name for name in names if re.fullmatch(r"(cls_token|pos_embed)\d*", name)], file
    assert covered(model, calls) >= 0.5, file


def test_parts_and_targets_of_every_file(traces: list[_parts.Calls]) -> None:
    assert len(architectures()) >= 85
    for file, architecture in architectures().items():
        try:
            model = built(architecture, "meta")
        except SpecError:  # PyTorch 2.11 and timm 1.0.26 are too old for the autocast and the groups of these
            assert file in ("efficientvit_mit", "levit")
            assert torch.__version__ < "2.12"
            continue
        check(file, model, traces[-1])


def test_modules_that_others_share_keep_their_values() -> None:
    """Those of CoaT's position encodings: all 56 tensors were left on the meta device."""
    model = built("coat_tiny", image={"size": 32})
    assert all(p.device.type == "cpu" for p in model.module.parameters())
    assert model.logits({"pixel_values": torch.zeros(1, 3, 32, 32)}).shape == (1, 3)


@pytest.mark.parametrize("architecture", NAMED)
def test_adapters_are_on_most_of_the_trunk_and_fit(architecture: str, traces: list[_parts.Calls]) -> None:
    if not timm.is_model(architecture):
        pytest.skip("this timm is older than the architecture")
    model = built(architecture, "meta")
    assert covered(model, traces[-1]) > 0.75
    facts, parts = model.part_facts, {"stem": "F", "blocks": "LoRA", "head": "T"}
    adapted = adapt(model, facts, parts, {"LoRA": lora.Settings(type="lora", r=4)})
    assert re.search(r"adapters on \d+ modules \(.*\), [\d.]+ % of the part's weights", adapted["blocks"].note)
    model.module.eval()
    assert model.logits(model.meta_inputs(2, model.max_lengths(), with_answers=False)).shape == (2, 3)


def test_the_head_is_the_layer_that_puts_out_labels() -> None:
    """Not the hidden layers of a classifier of several, which weights for another number of classes have, too."""
    model: Any = built("caformer_s18", "meta").model
    assert builder.classifier(model) == [model.head.fc.fc2]


def test_dilated_convolutions_are_left_out_where_the_library_lacks_them() -> None:
    dilated = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, dilation=2), torch.nn.Conv2d(2, 2, 1, dilation=2))
    assert _parts.default_targets(dilated)["lora"] == (["0", "1"] if _parts._peft_knows_dilation() else ["1"])

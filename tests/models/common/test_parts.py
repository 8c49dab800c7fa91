"""Parts by pattern: what patterns mean, and that adapters on several modules at once are real adapters of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from bench.errors import SpecError
from bench.models.common import parts as _parts
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import check_frozen, check_gradients
from bench.training.params import count_params, stored_tensors, write_tensors
from tests import factories
from tests.training.runs import load_stored

PATTERNS = {
    "stem": ["patch_embed", "cls_token", "pos_embed"],
    "body": ["blocks.[0-1]", "norm"],
    "rest": ["blocks.2", "head"],
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 2},
    "ia3": {"type": "ia3"},
    "vera": {"type": "peft_config", "peft_type": "VERA", "r": 4, "targets": {"body": ["fc1"], "rest": ["fc1"]}},
    "vblora": {"type": "peft_config", "peft_type": "VBLORA", "r": 2, "num_vectors": 8, "vector_length": 8, "topk": 2},
    "adalora": {"type": "peft_config", "peft_type": "ADALORA", "total_step": 10},
    "ln_tuning": {"type": "peft_config", "peft_type": "LN_TUNING", "targets": {"body": ["norm1", "norm2"]}},
    "bitfit": {"type": "bitfit"},
    "norm_layers": {"type": "norm_layers"},
    "last_blocks": {"type": "last_blocks", "k": 1},
}


class _Net(_parts.PartitionedModel):
    """A model of parts, as a family makes it."""

    def __init__(self, model: nn.Module, patterns: dict[str, Any], in_place: tuple[str, ...] = ()) -> None:
        paths = _parts.match_parts(model, patterns)
        super().__init__(model, paths, in_place)
        self.part_facts = {
            part: PartFacts(name=part, task_type=None, targets=_parts.default_targets(self.part(part)))
            for part in paths
        }


Net: Any = _Net  # of a whole model, it has what parts need


def vit(device: str = "cpu") -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    with torch.device(device):
        return timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes)


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


def method(name: str) -> MethodSettings:
    fields = METHODS[name]
    made: MethodSettings = factories.plugin("methods", fields["type"]).Settings.model_validate(fields)
    return made


def adapted(net: Any, parts: dict[str, str]) -> dict[str, AppliedMethod]:
    used = {action: method(action) for action in parts.values() if action not in "FT"}
    found = adapt(net, net.part_facts, parts, used)
    check_frozen(net, parts, found)
    return found


def images(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def disturb(tensors: list[nn.Parameter]) -> None:
    torch.manual_seed(7)
    with torch.no_grad():
        for tensor in tensors:
            tensor.add_(torch.randn_like(tensor), alpha=0.5)


def test_patterns_mean_modules_and_parameters() -> None:
    found = _parts.match_parts(vit("meta"), PATTERNS | {"rest": ["blocks.2.*", "head"]})
    assert found["stem"] == ("patch_embed", "cls_token", "pos_embed")
    assert found["body"] == ("blocks.0", "blocks.1", "norm")
    assert found["rest"] == ("blocks.2.norm1", "blocks.2.attn", "blocks.2.norm2", "blocks.2.mlp", "head")
    assert _parts.match_parts(vit("meta"), {"all": ""}) == {"all": ("",)}
    assert _parts.match_parts(vit("meta"), {"all": ["blocks", "blocks.*"]}) == {"all": ("blocks",)}


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ({"a": "bloks.*"}, "'a': 'bloks.*' names no module or parameter of the model; did you mean"),
        ({"a": "hed"}, "did you mean 'head'"),
        ({"a": "blocks.*", "b": "blocks.1.attn"}, "'a' and 'b' overlap: both hold blocks.1.attn"),
        ({"a": "", "b": "head"}, "overlap: both hold head"),
        ({"a": "pos_drop"}, "names no module or parameter"),
    ],
)
def test_patterns_that_mean_nothing_or_too_much(patterns: dict[str, str], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        _parts.match_parts(vit("meta"), patterns)
    assert words in str(caught.value)


def test_covering_takes_whole_modules_where_it_can() -> None:
    model = vit("meta")
    names = {name for name, _ in model.named_parameters()}
    assert _parts.minimal_paths(model, names) == ("",)
    blocks = {name for name in names if name.startswith("blocks")}
    assert _parts.minimal_paths(model, blocks | {"cls_token"}) == ("cls_token", "blocks")
    of_second = [f"blocks.1.{path}" for path in ("norm1", "attn", "norm2", "mlp.fc1.weight", "mlp.fc2")]
    without_one = _parts.minimal_paths(model, blocks - {"blocks.1.mlp.fc1.bias"})
    assert without_one == ("blocks.0", *of_second, "blocks.2")


@pytest.mark.parametrize("name", METHODS)
def test_the_model_goes_through_what_a_method_trains(name: str) -> None:
    net = Net(vit(), PATTERNS)
    parts = {"stem": "F", "body": name, "rest": "F"}
    found = adapted(net, parts)
    trained = [p for p in net.module.parameters() if p.requires_grad]
    net.model(images()).square().sum().backward()
    check_gradients(net)
    before = net.model.eval()(images())
    disturb(trained)
    assert not torch.allclose(before, net.model(images()))
    params = count_params(net, parts, found)
    assert params.by_part["body"].trainable == params.trainable == sum(p.numel() for p in trained)
    assert sum(own.total for own in params.by_part.values()) == params.total


def restored(net: Any, again: Any, parts: dict[str, str], file: Path, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Output of a disturbed model, equal to that of ``again`` with what is stored; trained on ``rows`` before."""
    found = adapted(net, parts)
    for _ in () if rows is None else range(3):
        net.module.train()
        net.model(rows).square().sum().backward()
    disturb([p for p in net.module.parameters() if p.requires_grad])
    write_tensors(file, stored_tensors(net, parts, found))
    load_stored(again, parts, adapted(again, parts), file)
    given = images() if rows is None else rows
    output: torch.Tensor = net.model.eval()(given)
    assert torch.equal(output, again.model.eval()(given))
    return output


@pytest.mark.parametrize("name", METHODS)
def test_what_is_stored_restores_the_model(name: str, tmp_path: Path) -> None:
    parts = {"stem": "F", "body": name, "rest": name if name in ("lora", "ia3", "bitfit") else "T"}
    output = restored(Net(vit(), PATTERNS), Net(vit(), PATTERNS), parts, tmp_path / "adapter.safetensors")
    assert not torch.allclose(output, vit().eval()(images()))


@pytest.mark.parametrize("blocks", ["T", "lora", "bitfit", "norm_layers"])
def test_what_is_stored_restores_batch_norms(blocks: str, tmp_path: Path) -> None:
    """Statistics of trained ones are stored; those of frozen ones stay."""

    def made() -> Any:
        torch.manual_seed(0)
        resnet: Any = timm.create_model("resnet18", channels=[8, 8, 8, 8], num_classes=5)
        return Net(resnet, {"stem": ["conv1", "bn1"], "blocks": "layer*", "head": "fc"})

    net, parts = made(), {"stem": "F", "blocks": blocks, "head": "T"}
    restored(net, made(), parts, tmp_path / "adapter.safetensors", torch.randn(4, 3, 32, 32))
    moved = {name for name, own in net.model.named_buffers() if name.endswith("_mean") and own.abs().sum() > 0}
    assert all(name.startswith("layer") for name in moved)
    assert bool(moved) == (blocks in ("T", "norm_layers"))


def test_an_adapter_on_a_layer_that_is_itself_named() -> None:
    net = Net(vit(), {"head": "head", "body": "blocks"})
    adapted(net, {"head": "lora", "body": "F"})
    before = net.model.eval()(images())
    disturb([p for p in net.module.parameters() if p.requires_grad])
    assert not torch.allclose(before, net.model(images()))
    assert type(net.model.head).__module__.startswith("peft")


def test_the_head_of_the_whole_model_and_its_blocks() -> None:
    net = Net(vit(), {"all": ""})
    head = factories.plugin("methods", "head")
    names = head.select(head.Settings(type="head"), net.part_facts["all"], net.part("all"))
    assert names == {"head.weight", "head.bias"}


def test_loose_parameters_belong_to_their_part_on_every_device() -> None:
    net = Net(vit(), PATTERNS)
    parts = {"stem": "lora", "body": "T", "rest": "F"}
    found = adapted(net, parts)
    before = count_params(net, parts, found)
    stem = sum(p.numel() for n, p in vit("meta").named_parameters() if n.startswith(("patch", "cls", "pos")))
    assert before.by_part["stem"].total == stem + before.by_part["stem"].trainable
    net.module.to("meta", torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 and p.device.type == "meta" for p in net.module.parameters())
    assert count_params(net, parts, found) == before
    check_frozen(net, parts, found)


def test_a_part_in_place_is_called_through_its_wrapper() -> None:
    net = Net(vit(), {"body": "blocks", "head": "head"}, in_place=("body",))
    assert net.part("body") is net.model.blocks
    adapted(net, {"body": "lora", "head": "T"})
    assert net.part("body") is net.model.blocks
    assert type(net.model.blocks).__name__ == "PeftModel"
    assert net.model(images()).shape == (3, 5)
    whole = Net(vit(), {"all": ""}, in_place=("all",))
    adapted(whole, {"all": "lora"})
    assert whole.part("all") is whole.model
    assert type(whole.model).__name__ == "PeftModel"


def test_only_layers_that_run_are_targets() -> None:
    """BEiT's attention takes the weight of its ``qkv`` for itself: an adapter there would do nothing."""
    beit = on_meta("beit_base_patch16_224", depth=1, img_size=32, embed_dim=16, num_heads=2)
    ran = _parts.modules_called(beit, torch.empty(1, 3, 32, 32, device="meta")).modules
    assert _parts.default_targets(beit.blocks)["lora"] == ["fc1", "fc2", "proj", "qkv"]
    assert _parts.default_targets(beit.blocks, ran)["lora"] == ["fc1", "fc2", "proj"]


def test_a_look_at_what_runs_leaves_the_model_as_it_was() -> None:
    model: Any = timm.create_model("resnet18", num_classes=3)
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = _parts.modules_called(model, torch.empty(2, 3, 64, 64, device="meta"))
    assert {model, model.conv1} <= calls.modules
    assert calls.classifier >= {model.fc, model.global_pool}
    assert not {model.conv1, model.layer4} & calls.classifier
    assert model.training
    assert not model.layer1[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_targets_of_convolutions_where_nothing_is_linear() -> None:
    assert "conv1" in _parts.default_targets(on_meta("resnet18").layer1)["lora"]
    convnext = on_meta("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    assert _parts.default_targets(convnext.stages)["lora"] == ["fc1", "fc2"]
    assert _parts.default_targets(nn.Sequential(nn.ReLU())) == {}


def test_ln_tuning_is_of_all_norms_that_names_can_tell() -> None:
    model = vit("meta")
    targets = _parts.default_targets(model.blocks)
    assert (targets["ia3"], targets["ln_tuning"]) == (["fc2", "qkv"], ["norm1", "norm2"])
    assert "ln_tuning" not in _parts.default_targets(model), "norm is also an identity in each attention"


def test_output_layers_are_targets_where_there_is_nothing_else() -> None:
    model = vit("meta")
    whole = _parts.default_targets(_parts.PartView(model, [""]), outputs=[model.head])
    assert whole["lora"] == ["attn.proj", "fc1", "fc2", "qkv"]  # patch_embed.proj is a convolution
    assert whole["head"] == ["head"]
    assert _parts.default_targets(_parts.PartView(model, ["head", "norm"]), outputs=[model.head])["lora"] == ["head"]

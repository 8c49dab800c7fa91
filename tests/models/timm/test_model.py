"""timm models: published sizes, parts by timm's own grouping, sizes of images, and errors that say what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import BenchError, SpecError
from bench.methods import lora
from bench.models import timm as family
from bench.plugins.contracts import InputLengths
from bench.training.adapt import adapt
from bench.training.params import count_params
from tests.models.timm.models import TINY_VIT, built, picture, task

IMAGENET = tuple(str(label) for label in range(1000))
NO_TEXT = InputLengths(question_tokens=0, answer_tokens=0)


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
    model = built(architecture, "meta", task(IMAGENET))
    total = sum(p.numel() for p in model.module.parameters())
    assert round(total / 1e6, 2) == published
    assert exact is None or total == exact
    params = count_params(model, dict.fromkeys(family.PARTS, "F"), {})
    assert sum(part.total for part in params.by_part.values()) == params.total == total
    assert all(part.total for part in params.by_part.values())


@pytest.mark.parametrize(
    ("architecture", "stem", "head"),
    [
        ("vit_tiny_patch16_224", {"cls_token", "pos_embed", "patch_embed"}, {"head"}),
        (
            "deit_tiny_distilled_patch16_224",
            {"cls_token", "pos_embed", "dist_token", "patch_embed"},
            {"head", "head_dist"},
        ),
        ("resnet18", {"conv1", "bn1"}, {"fc"}),
        ("convnext_atto", {"stem"}, {"head"}),
        ("mobilenetv3_small_050", {"conv_stem", "bn1"}, {"classifier"}),
        ("regnety_002", {"stem"}, {"head"}),
    ],
)
def test_default_parts_are_those_of_timm(architecture: str, stem: set[str], head: set[str]) -> None:
    model = built(architecture, "meta")
    of = {
        part: {name.partition(".")[0] for name, _ in model.part(part).named_parameters()} for part in model.part_facts
    }
    assert of["stem"] == stem
    assert of["head"] == head
    assert sum(p.numel() for p in model.part("head").parameters()) % 3 == 0, "three labels, and no norm beside"


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


def test_images_reach_the_model_as_timm_prepares_them() -> None:
    model = built("resnet18", image={"size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 1.0})
    batch = model.collate([picture(), picture(64, 64)], ["", ""], [])
    meta = model.meta_inputs(2, NO_TEXT, with_answers=False)
    assert {n: (t.shape, t.dtype) for n, t in batch.items()} == {n: (t.shape, t.dtype) for n, t in meta.items()}
    exact = np.asarray(picture(64, 64), dtype=np.float32) / 127.5 - 1
    assert torch.allclose(batch["pixel_values"][1], torch.from_numpy(exact).permute(2, 0, 1), atol=1e-5)
    assert model.logits(batch).shape == (2, 3)
    assert model.max_lengths() == NO_TEXT == model.lengths([""], [])
    assert model.facts() == {"image_size": 64, "attention": "sdpa", "labels": 3}
    grey = picture().convert("L")
    assert model.collate([grey], [""], [])["pixel_values"].shape == (1, 3, 64, 64)


def test_the_data_config_of_a_tag_and_of_an_argument() -> None:
    inception = built("vit_base_patch16_224.augreg_in21k", "meta").model.pretrained_cfg
    assert inception["mean"] == (0.5, 0.5, 0.5)
    assert built(arguments=TINY_VIT | {"img_size": 48}, device="meta").image_shape == (3, 48, 48)
    assert built("vit_tiny_patch16_224", "meta", arguments={}, image={}).image_shape == (3, 224, 224)


def test_both_attentions_agree() -> None:
    fused, eager = built(attention="sdpa"), built(attention="eager")
    assert [m.fused_attn for m in fused.model.modules() if hasattr(m, "fused_attn")] == [True] * 3
    assert [m.fused_attn for m in eager.model.modules() if hasattr(m, "fused_attn")] == [False] * 3
    batch = fused.collate([picture()], [""], [])
    assert torch.allclose(fused.logits(batch), eager.logits(batch), atol=1e-5)


def test_a_model_that_cannot_checkpoint_says_so() -> None:
    with pytest.raises(BenchError, match="gradient_checkpointing to false"):
        built("inception_v3", "meta").checkpoint_activations()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architecture": "vit_tinny_patch16_224"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"architecture": "resnet18.a1_in1"}, "no tag 'a1_in1'; did you mean 'a1_in1k'"),
        ({"arguments": {"dept": 3}}, "did you mean 'depth'"),
        ({"architecture": "resnet18", "arguments": {"img_size": 32}}, "img_size"),
        ({"architecture": "inception_v3", "image": {"size": 32}}, "does not take images of 32 x 32"),
    ],
)
def test_what_timm_does_not_have(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        built(device="meta", **fields)
    assert words in str(caught.value)

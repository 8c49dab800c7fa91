"""timm models: parts by timm's grouping, preprocessing, attention, and errors with a remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import BenchError, SpecError
from bench.plugins.contracts import InputLengths
from tests.models.timm.models import TINY_VIT, built, picture

NO_TEXT = InputLengths(question_tokens=0, answer_tokens=0)


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

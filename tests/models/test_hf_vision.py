"""Transformers models that label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from bench.models import hf
from bench.models.hf import ImageSettings
from tests.models import hf_models as own
from tests.models.hf_models import LOOK

ARCHITECTURES = ("vit", "deit", "dinov2", "resnet", "convnextv2")
SMALL = ImageSettings(size=16)
IMAGES = [Image.new("RGB", (20, 12), color) for color in ("red", "blue", "red", "blue")]
ROWS = torch.tensor([0, 1, 0, 1])


def loss(model: Any) -> torch.Tensor:
    return cross_entropy(model.logits(model.collate(IMAGES, [""] * 4, [])), ROWS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_learns_and_is_saved_with_its_preprocessing(name: str, tmp_path: Path) -> None:
    image = SMALL if name != "convnextv2" else ImageSettings(size=32)
    model = own.make(name, LOOK, image=image)
    assert list(model.part_facts) == ["embeddings", "encoder", "head"]
    own.put(model, dict.fromkeys(model.part_facts, "T"))
    first, last = own.train(model, lambda: loss(model))
    assert last < 0.3 * first
    hf.save(model, tmp_path)
    again: Any = hf.build(hf.Settings(family="hf", path=tmp_path), texts=[], device="cpu", task=LOOK)
    again.module.eval()
    with torch.no_grad():
        assert torch.allclose(
            again.logits(again.collate(IMAGES, [], [])), model.logits(model.collate(IMAGES, [], [])), atol=1e-5
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_in_the_blocks_and_shapes_on_meta(name: str) -> None:
    model = own.make(name, LOOK, image=ImageSettings(size=32))
    own.put(model, {"embeddings": "F", "encoder": "LoRA", "head": "T"}, LoRA=own.method("lora", r=2))
    first, last = own.train(model, lambda: loss(model), steps=8)
    assert last < first
    on_meta = own.make(name, LOOK, image=ImageSettings(size=32), device="meta")
    lengths = on_meta.max_lengths()
    (pixels,) = on_meta.meta_inputs(4, lengths, with_answers=True).values()
    assert pixels.shape == model.collate(IMAGES, [], [])["pixel_values"].shape == (4, 3, 32, 32)
    assert on_meta.facts()["image_size"] == 32
    assert on_meta.logits({"pixel_values": pixels}).shape == (4, 2)


def test_the_processor_of_the_weights_and_what_is_set_beside_it(tmp_path: Path) -> None:
    from transformers import ViTImageProcessor

    hf.save(own.make("vit", LOOK), tmp_path)
    kept = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    kept.save_pretrained(tmp_path)

    def pixels(**image: Any) -> torch.Tensor:
        given = hf.Settings(family="hf", path=tmp_path, image=ImageSettings(**image))
        model: Any = hf.build(given, texts=[], device="cpu", task=LOOK)
        found: torch.Tensor = model.collate([IMAGES[0]], [], [])["pixel_values"]
        with torch.no_grad():
            assert model.logits({"pixel_values": found}).isfinite().all()
        return found

    assert pixels().shape == (1, 3, 16, 16)
    assert pixels()[0, :, 0, 0].tolist() == [1, 0, 0]
    assert pixels(mean=(1, 1, 1), std=(0.5, 0.5, 0.5))[0, :, 0, 0].tolist() == [0, -2, -2]
    assert pixels(size=24).shape == (1, 3, 24, 24), "positions are interpolated"

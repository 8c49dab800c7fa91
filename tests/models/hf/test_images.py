"""Transformers models that label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from bench.errors import SpecError
from bench.models import hf
from bench.models.hf import ImageSettings, architectures
from tests.models.hf import models as tiny
from tests.models.hf.models import LABELS, LOOK

ARCHITECTURES = ("vit", "deit", "dinov2", "resnet", "convnextv2")
IMAGES = [Image.new("RGB", (20, 12), color) for color in ("red", "blue", "red", "blue")]
OWN_INPUTS = {"imagegpt", "perceiver", "pp_lcnet", "shieldgemma2", "siglip2"}
"""Read no square of pixels, or (the third) cannot be computed on meta."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_learns_and_is_saved_with_its_preprocessing(name: str, tmp_path: Path) -> None:
    model = tiny.make(name, LOOK, image=ImageSettings(size=16 if name != "convnextv2" else 32))
    assert list(model.part_facts) == ["embeddings", "encoder", "head"]
    tiny.put(model, {"embeddings": "T", "encoder": "T", "head": "T"})
    rows, labels = model.collate(IMAGES, [""] * 4, []), torch.tensor([0, 1, 0, 1])
    first, last = tiny.train(model, lambda: cross_entropy(model.logits(rows), labels))
    assert last < 0.3 * first
    hf.save(model, tmp_path)
    again = tiny.build(hf.Settings(family="hf", path=tmp_path), LOOK)
    again.module.eval()
    with torch.no_grad():
        assert torch.allclose(again.logits(again.collate(IMAGES, [], [])), model.logits(rows), atol=1e-5)


def test_the_processor_of_the_weights_and_the_settings_over_it(tmp_path: Path) -> None:
    from transformers import ViTImageProcessor

    hf.save(tiny.make("vit", LOOK), tmp_path)
    kept = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    kept.save_pretrained(tmp_path)

    def pixels(**image: Any) -> torch.Tensor:
        model = tiny.build(hf.Settings(family="hf", path=tmp_path, image=ImageSettings(**image)), LOOK)
        pixels: torch.Tensor = model.collate([IMAGES[0]], [], [])["pixel_values"]
        with torch.no_grad():
            assert model.logits({"pixel_values": pixels}).isfinite().all()
        return pixels

    assert pixels().shape == (1, 3, 16, 16)
    assert pixels()[0, :, 0, 0].tolist() == [1, 0, 0]
    assert pixels(mean=(1, 1, 1), std=(0.5, 0.5, 0.5))[0, :, 0, 0].tolist() == [0, -2, -2]
    assert pixels(size=24).shape == (1, 3, 24, 24), "positions are interpolated"


@pytest.mark.parametrize("name", sorted({*architectures.classes(architectures.IMAGES)} - OWN_INPUTS))
def test_a_bare_configuration_takes_the_images_that_it_is_made_for(name: str) -> None:
    try:
        config = tiny.shallow(name).to_dict()
    except KeyError:
        pytest.skip("the library names a class, not a type")
    settings = hf.Settings(family="hf", config={**config, "transformers_version": "5"})
    try:
        model = tiny.build(settings, LOOK, device="meta")
    except SpecError as error:
        pytest.skip(str(error))
    model.module.eval()
    batch = model.meta_inputs(2, model.max_lengths(), with_answers=False)
    assert tuple(model.logits(batch).shape) == (2, len(LABELS))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_an_edge_is_set_where_the_configuration_has_it(name: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"model_type": name, "vision_config": {**sizes, "patch_size": 8, "image_size": 64}}
    for changes, edge in (({}, 64), ({"image": {"size": 32}}, 32)):
        model = tiny.build(hf.Settings.model_validate({"family": "hf", "config": config, **changes}), LOOK)
        assert (model.facts()["image_size"], model.base.config.vision_config.image_size) == (edge, edge)


def test_an_architecture_that_reads_no_square_of_pixels_is_refused() -> None:
    config = {"model_type": "siglip2", "vision_config": {"num_hidden_layers": 1}}
    with pytest.raises(SpecError, match="fails on images alone"):
        tiny.build(hf.Settings(family="hf", config=config), LOOK)

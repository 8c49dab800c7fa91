"""Weights of timm models: every layout, loaded strictly and safely, and saved so that they load again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm as library
import torch

from bench.errors import WeightsError
from bench.models import timm as family
from bench.models.timm.model import TimmModel
from tests.models.timm.models import SMALL_RESNET, settings, task

TWO = ("a", "b")


def model_of(
    labels: tuple[str, ...] = TWO, seed: int = 0, device: str = "cpu", *, named: bool = False, **fields: Any
) -> TimmModel:
    """``named``: the spec names the labels."""
    torch.manual_seed(seed)
    facts = task(labels, labels_from="spec" if named else "data")
    given = settings(**(SMALL_RESNET | fields))
    model = family.build(given, texts=[], device=device, task=facts)
    model.module.eval()
    return model


def images() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))}


def same(one: TimmModel, other: TimmModel) -> bool:
    return torch.equal(one.logits(images()), other.logits(images()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that was written with a preprocessing of its own."""
    model = model_of(image={"size": 32, "mean": [0.1, 0.2, 0.3], "crop_pct": 1.0})
    family.save(model, tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_model_is_the_same_model(folder: Path) -> None:
    again = model_of(seed=1, weights={"kind": "folder", "path": str(folder)})
    assert same(again, model_of())
    assert again.model.pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    assert again.model.pretrained_cfg["crop_pct"] == 1.0
    assert not same(model_of(seed=1), model_of())
    assert json.loads((folder / "config.json").read_text())["architecture"] == "resnet18"


def test_timm_itself_reads_what_was_saved(folder: Path) -> None:
    model = library.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(model(images()["pixel_values"]), model_of().logits(images()))


def test_other_classes_get_a_new_classifier_on_the_same_body(folder: Path) -> None:
    three = model_of(("x", "y", "z"), seed=1, weights={"kind": "folder", "path": str(folder)})
    assert three.logits(images()).shape == (2, 3)
    same_body = model_of()
    for part in ("stem", "blocks"):
        stored = same_body.part(part).state_dict()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in three.part(part).state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_one_file_is_enough(folder: Path, suffix: str) -> None:
    file = folder / "model.safetensors"
    if suffix == "pth":
        file = folder / "checkpoint.pth"
        torch.save({"state_dict": {f"module.{n}": t for n, t in model_of().model.state_dict().items()}}, file)
    for labels in (TWO, ("x", "y", "z")):
        again = model_of(labels, seed=1, named=True, weights={"kind": "file", "path": str(file)})
        assert torch.equal(again.model.layer4[1].conv2.weight, model_of().model.layer4[1].conv2.weight)
    assert same(model_of(seed=1, named=True, weights={"kind": "file", "path": str(file)}), model_of())
    with pytest.raises(WeightsError, match=r"names none of its rows, and the data have the classes a, b.*task\.labels"):
        model_of(seed=1, weights={"kind": "file", "path": str(file)})


def test_a_classifier_and_classes_are_joined_by_name(folder: Path, tmp_path: Path) -> None:
    weights = {"kind": "folder", "path": str(folder)}
    turned = model_of(("B", "a"), seed=1, weights=weights)
    expected = model_of().logits(images()).flip(1)
    assert torch.equal(turned.logits(images()), expected)
    family.save(turned, tmp_path / "again")
    again = model_of(("B", "a"), seed=1, weights={"kind": "folder", "path": str(tmp_path / "again")})
    assert torch.equal(again.logits(images()), expected)
    with pytest.raises(WeightsError, match=r"has the rows a, b, and the data have the classes x, y"):
        model_of(("x", "y"), weights=weights)


def test_position_embeddings_are_resampled_to_the_image_size(tmp_path: Path) -> None:
    vit: dict[str, Any] = {
        "architecture": "vit_tiny_patch16_224",
        "arguments": {"embed_dim": 16, "depth": 1, "num_heads": 2},
    }
    family.save(model_of(**vit, image={"size": 64}), tmp_path)
    larger = model_of(**vit, image={"size": 96}, weights={"kind": "folder", "path": str(tmp_path)})
    assert larger.model.pos_embed.shape[1] == 37
    assert larger.logits({"pixel_values": torch.zeros(1, 3, 96, 96)}).shape == (1, 2)


def test_weights_that_do_not_fit_or_are_missing(folder: Path, tmp_path: Path) -> None:
    def refused(words: str, **fields: Any) -> None:
        with pytest.raises(WeightsError) as caught:
            model_of(**fields)
        assert words in str(caught.value)

    at_folder: dict[str, Any] = {"weights": {"kind": "folder", "path": str(folder)}}
    refused("model.architecture", architecture="resnet34", **at_folder)
    refused("layer1.0.conv1.weight", arguments={"channels": [16, 8, 8, 8]}, **at_folder)
    nowhere: dict[str, Any] = {"weights": {"kind": "folder", "path": str(tmp_path)}}
    refused("null for random", **nowhere)
    assert next(model_of(device="meta", **nowhere).module.parameters()).is_meta, "counting needs no weights"
    refused("null for random", weights={"kind": "file", "path": str(tmp_path / "no.pth")})
    state = model_of().model.state_dict()
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "torn.pth")
    for labels in (TWO, ("x", "y", "z")):
        refused("layer3.0.conv1.weight", labels=labels, weights={"kind": "file", "path": str(tmp_path / "torn.pth")})
    (folder / "config.json").unlink()
    refused("no config.json", **at_folder)

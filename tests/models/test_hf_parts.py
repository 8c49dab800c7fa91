"""Parts of every architecture of the installed transformers that sees and writes: towers, text model, what is between.

All are built on meta with two layers: that is what tells parts apart, and takes no memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from bench.models import hf
from bench.models.common.parts import PartView
from bench.models.hf import architectures
from bench.models.hf.default_parts import default_parts
from bench.plugins.contracts import TaskFacts
from tests.models.hf_models import ASK
from tests.models.hf_small import shallow

TYPES = sorted(architectures.classes(architectures.VISION_TEXT))
BETWEEN = {
    "blip-2": ["query_tokens", "qformer", "language_projection"],
    "deepseek_vl": ["model.aligner"],
    "kosmos-2": ["image_to_text_projection"],
    "llava": ["model.multi_modal_projector"],
    "llava_next": ["model.image_newline", "model.multi_modal_projector"],
    "idefics2": ["model.connector"],
    "internvl": ["model.multi_modal_projector"],
    "git": ["git.visual_projection"],
    "fuyu": ["model.vision_embed_tokens"],
}
"""Connectors of models as their papers draw them."""


@cache
def model_of(model_type: str) -> Any:
    """Null where the library cannot build its own default, made shallow."""
    auto: Any = transformers.AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            return auto.from_config(shallow(model_type))
    except Exception:  # whatever its configuration and layers check
        return None


def parts_of(model_type: str) -> tuple[Any, dict[str, tuple[str, ...]]]:
    model = model_of(model_type)
    if model is None:
        pytest.skip("this release cannot build it by default")
    return model, default_parts(model, decoder_only=False)


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Any, dict[str, tuple[str, ...]]]]:
    found = {name: parts_of(name) for name in TYPES if model_of(name) is not None}
    assert len(found) > 0.8 * len(TYPES), sorted({*TYPES} - {*found})
    return found


def test_every_tensor_of_every_architecture_is_in_one_part(built: dict[str, Any]) -> None:
    for name, (model, parts) in built.items():
        held = [id(tensor) for paths in parts.values() for tensor in PartView(model, paths).parameters()]
        assert len(held) == len(set(held)), name
        assert set(held) == {id(tensor) for tensor in model.parameters()}, name
        assert "decoder" in parts, name


def test_nothing_between_tower_and_text_model_lands_in_either(built: dict[str, Any]) -> None:
    """By what the library calls a model's text model and vision tower."""
    checked = 0
    for name, (model, parts) in built.items():
        text, tower = model.get_decoder(), model.get_encoder(modality="image")
        apart = isinstance(tower, nn.Module) and text not in [*tower.modules()] and tower not in [*text.modules()]
        if model.config.is_encoder_decoder or not apart:
            continue
        written, seen = ({id(tensor) for tensor in own.parameters()} for own in (text, tower))
        decoder, encoder = (
            {id(t) for t in PartView(model, parts.get(p, ())).parameters()} for p in ("decoder", "encoder")
        )
        outputs = model.get_output_embeddings()
        heads = {id(tensor) for tensor in outputs.parameters()} if outputs is not None else set()
        assert seen <= encoder, name
        assert decoder <= written | heads, name
        between = {id(tensor) for tensor in PartView(model, parts.get("connector", ())).parameters()}
        assert not between & (written | seen | heads), name
        checked += 1
    assert checked > 0.6 * len(built)


@pytest.mark.parametrize("model_type", BETWEEN)
def test_connectors_are_those_of_the_papers(model_type: str) -> None:
    _, parts = parts_of(model_type)
    assert list(parts["connector"]) == BETWEEN[model_type]


def test_a_text_model_that_is_its_own_wrapper_has_a_decoder() -> None:
    _, parts = parts_of("git")
    assert (parts["encoder"], parts["decoder"]) == (("git.image_encoder",), ("git.encoder",))


def test_image_tokenizers_are_towers() -> None:
    _, parts = parts_of("chameleon")
    assert parts["encoder"] == ("model.vqmodel",)
    assert parts["decoder"] == ("model.layers", "model.norm")


def test_a_spec_may_name_the_connector() -> None:
    settings = hf.Settings(family="hf", config={"model_type": "llava"})
    assert "connector" in hf.parts(settings, ASK)
    text = TaskFacts(name="write", inputs=("text",), output="text")
    assert hf.parts(hf.Settings(family="hf", config={"model_type": "gpt2"}), text)["connector"].optional

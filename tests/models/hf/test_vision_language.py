"""Transformers models that read an image and write: answers, shapes, and parts of every architecture."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from bench.errors import BenchError, SpecError, WeightsError
from bench.models import hf
from bench.models.common.parts import PartView
from bench.models.hf import architectures
from bench.models.hf.default_parts import default_parts
from tests.models.hf import models as tiny
from tests.models.hf import vision_language_models
from tests.models.hf.models import ASK, BEAMS, WRITE
from tests.models.hf.vision_language_models import ANSWERS, IMAGES, MAKERS, QUESTIONS

ALL = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: vision_language_models.write(name, tmp_path_factory.mktemp(name)) for name in MAKERS}


def build(path: Path, device: str = "cpu", **changes: Any) -> Any:
    return tiny.build(hf.Settings(family="hf", path=path, **changes), ASK, device=device)


@ALL
def test_learns_answers_one_by_one_as_together_and_is_saved(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = build(folders[name])
    assert [part for part in model.part_facts if part != "connector"][:3] == ["embeddings", "encoder", "decoder"]
    tiny.put(model, dict.fromkeys(model.part_facts, "T"))
    on_meta = build(folders[name], device="meta")
    assert on_meta.has_vocabulary
    for answers in ([], ANSWERS):
        batch = model.collate(IMAGES, QUESTIONS, answers)
        predicted = on_meta.meta_inputs(4, on_meta.lengths(QUESTIONS, ANSWERS), with_answers=bool(answers))
        assert tiny.shapes(predicted) == tiny.shapes(batch)
    first = 1 if name == "blip" else 0  # its decoder's first token, which no token is in front of
    assert [int((row != -100).sum()) - first for row in batch["labels"]] == [2, 2, 2, 2], "a word and the end"
    model.loss(batch).backward()
    assert all(p.grad is not None for p in model.module.parameters())
    before, after = tiny.train(model, lambda: model.loss(batch), steps=100, lr=3e-3)
    assert after < 0.1 * before
    together = model.generate(model.collate(IMAGES, QUESTIONS, []), BEAMS)
    assert together == ANSWERS
    pairs = zip(IMAGES, QUESTIONS, strict=True)
    assert together == [model.generate(model.collate([image], [text], []), BEAMS)[0] for image, text in pairs]
    hf.save(model, tmp_path)
    again = build(tmp_path)
    again.module.eval()
    assert again.generate(again.collate(IMAGES, QUESTIONS, []), BEAMS) == together


@ALL
def test_lora_reaches_the_vision_tower(name: str, folders: dict[str, Path]) -> None:
    model = build(folders[name])
    parts = dict.fromkeys(model.part_facts, "F") | {"encoder": "LoRA", "decoder": "LoRA"}
    tiny.put(model, parts, LoRA=tiny.method("lora", r=2, lora_dropout=0.0))
    model.loss(model.collate(IMAGES, QUESTIONS, ANSWERS)).backward()
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    assert any("vision" in n or "visual" in n for n in trained)
    assert all(p.grad is not None for p in trained.values())


def test_a_question_keeps_the_tokens_that_are_set(folders: dict[str, Path]) -> None:
    """It kept one, whatever was set."""
    model = build(folders["llava"], question_max_tokens=3)
    one, three, four = (model.lengths([text], ["yes"]).question_tokens for text in ("is", "is it red", "is it red ?"))
    assert three == four == one + 2 <= model.max_lengths().question_tokens


def test_without_a_processor_only_costs_are_counted(folders: dict[str, Path]) -> None:
    config = str(folders["llava"] / "config.json")
    counted = tiny.build(hf.Settings(family="hf", config=config), ASK, device="meta")
    with pytest.raises(WeightsError, match=r"needs a processor.*model\.tokenizer"):
        counted.meta_inputs(1, counted.max_lengths(), with_answers=False)
    fresh = tiny.build(hf.Settings(family="hf", config=config, tokenizer=str(folders["llava"])), ASK)
    assert fresh.loss(fresh.collate(IMAGES, QUESTIONS, ANSWERS)).isfinite()


def test_a_model_with_a_decoder_of_its_own_is_refused() -> None:
    with pytest.raises(SpecError, match="'florence2' on images and questions"):
        tiny.build(hf.Settings(family="hf", config={"model_type": "florence2"}), ASK, ["?"], "meta")


def test_no_virtual_tokens_in_front_of_an_image(folders: dict[str, Path]) -> None:
    model = build(folders["llava"], parts={"model": ""})
    assert model.part_facts["model"].task_type is None
    with pytest.raises(BenchError):
        tiny.put(model, {"model": "P"}, P=tiny.method("PROMPT_TUNING", num_virtual_tokens=2))


# Parts of every architecture: towers, text model, connector. All are built on meta with two layers, which takes no
# memory.
TYPES = sorted(architectures.classes(architectures.VISION_TEXT))
CONNECTORS = {
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
            return auto.from_config(tiny.shallow(model_type))
    except Exception:  # whatever its configuration and layers check
        return None


def parts_of(model_type: str) -> tuple[Any, dict[str, tuple[str, ...]]]:
    model = model_of(model_type)
    if model is None:
        pytest.skip("this release cannot build it by default")
    return model, default_parts(model, decoder_only=False)


@pytest.fixture(scope="module")
def built() -> dict[str, tuple[Any, dict[str, tuple[str, ...]]]]:
    models = {name: parts_of(name) for name in TYPES if model_of(name) is not None}
    assert len(models) > 0.8 * len(TYPES), sorted({*TYPES} - {*models})
    return models


def ids(module: nn.Module | None) -> set[int]:
    return set() if module is None else {id(tensor) for tensor in module.parameters()}


def test_every_tensor_of_every_architecture_is_in_one_part(built: dict[str, Any]) -> None:
    for name, (model, parts) in built.items():
        held = [id(tensor) for paths in parts.values() for tensor in PartView(model, paths).parameters()]
        assert len(held) == len(set(held)), name
        assert set(held) == ids(model), name
        assert "decoder" in parts, name


def test_nothing_between_tower_and_text_model_lands_in_either(built: dict[str, Any]) -> None:
    """By what the library calls a model's text model and vision tower."""
    checked = 0
    for name, (model, parts) in built.items():
        text, tower = model.get_decoder(), model.get_encoder(modality="image")
        apart = isinstance(tower, nn.Module) and text not in [*tower.modules()] and tower not in [*text.modules()]
        if model.config.is_encoder_decoder or not apart:
            continue
        of_text, of_tower, heads = ids(text), ids(tower), ids(model.get_output_embeddings())
        encoder, connector, decoder = (
            ids(PartView(model, parts.get(part, ()))) for part in ("encoder", "connector", "decoder")
        )
        assert of_tower <= encoder, name
        assert decoder <= of_text | heads, name
        assert not connector & (of_text | of_tower | heads), name
        checked += 1
    assert checked > 0.6 * len(built)


@pytest.mark.parametrize("model_type", CONNECTORS)
def test_connectors_are_those_of_the_papers(model_type: str) -> None:
    assert list(parts_of(model_type)[1]["connector"]) == CONNECTORS[model_type]


def test_towers_and_decoders_without_a_module_of_their_own() -> None:
    _, parts = parts_of("git")
    assert (parts["encoder"], parts["decoder"]) == (("git.image_encoder",), ("git.encoder",))
    _, parts = parts_of("chameleon")
    assert (parts["encoder"], parts["decoder"]) == (("model.vqmodel",), ("model.layers", "model.norm"))


def test_a_spec_may_name_the_connector() -> None:
    for model_type, task in (("llava", ASK), ("gpt2", WRITE)):
        assert hf.parts(hf.Settings(family="hf", config={"model_type": model_type}), task)["connector"].optional

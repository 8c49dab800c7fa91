"""Transformers models that look at an image and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError, SpecError, WeightsError
from bench.models import hf
from tests.models import hf_models as own
from tests.models import hf_seeing
from tests.models.hf_models import ASK, BEAMS
from tests.models.hf_seeing import ANSWERS, IMAGES, MAKERS, QUESTIONS

ALL = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: hf_seeing.write(name, tmp_path_factory.mktemp(name)) for name in MAKERS}


def build(path: Path, device: str = "cpu", **changes: Any) -> Any:
    return hf.build(hf.Settings(family="hf", path=path, **changes), texts=[], device=device, task=ASK)


@ALL
def test_learns_answers_one_by_one_as_together_and_is_saved(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = build(folders[name])
    assert [part for part in model.part_facts if part != "connector"][:3] == ["embeddings", "encoder", "decoder"]
    own.put(model, dict.fromkeys(model.part_facts, "T"))
    batch = model.collate(IMAGES, QUESTIONS, ANSWERS)
    model.loss(batch).backward()
    assert all(p.grad is not None for p in model.module.parameters())
    first, last = own.train(model, lambda: model.loss(batch), steps=100, lr=3e-3)
    assert last < 0.1 * first
    together = model.generate(model.collate(IMAGES, QUESTIONS, []), BEAMS)
    assert together == ANSWERS
    pairs = zip(IMAGES, QUESTIONS, strict=True)
    assert together == [model.generate(model.collate([image], [text], []), BEAMS)[0] for image, text in pairs]
    hf.save(model, tmp_path)
    again = build(tmp_path)
    again.module.eval()
    assert again.generate(again.collate(IMAGES, QUESTIONS, []), BEAMS) == together


@ALL
def test_lengths_and_shapes_are_those_of_a_batch(name: str, folders: dict[str, Path]) -> None:
    model, on_meta = build(folders[name]), build(folders[name], device="meta")
    assert on_meta.has_vocabulary
    found = on_meta.lengths(QUESTIONS, ANSWERS)
    for answers in ([], ANSWERS):
        batch = model.collate(IMAGES, QUESTIONS, answers)
        shapes = {key: (tuple(t.shape), t.dtype) for key, t in batch.items()}
        made = on_meta.meta_inputs(4, found, with_answers=bool(answers))
        assert {key: (tuple(t.shape), t.dtype) for key, t in made.items()} == shapes


@ALL
def test_a_loss_is_of_answers_alone(name: str, folders: dict[str, Path]) -> None:
    labels = build(folders[name]).collate(IMAGES, QUESTIONS, ANSWERS)["labels"]
    first = 1 if name == "blip" else 0  # its decoder's first token, which no token is in front of
    assert [int((row != -100).sum()) - first for row in labels] == [2, 2, 2, 2]


@ALL
def test_lora_sees_too(name: str, folders: dict[str, Path]) -> None:
    model = build(folders[name])
    parts = dict.fromkeys(model.part_facts, "F") | {"encoder": "LoRA", "decoder": "LoRA"}
    own.put(model, parts, LoRA=own.method("lora", r=2, lora_dropout=0.0))
    batch = model.collate(IMAGES, QUESTIONS, ANSWERS)
    model.loss(batch).backward()
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    assert any("vision" in n or "visual" in n for n in trained)
    assert all(p.grad is not None for p in trained.values())


def test_without_a_processor_only_costs_are_counted(folders: dict[str, Path]) -> None:
    config = str(folders["llava"] / "config.json")
    counted: Any = hf.build(hf.Settings(family="hf", config=config), texts=[], device="meta", task=ASK)
    with pytest.raises(WeightsError, match=r"needs a processor.*model\.tokenizer"):
        counted.meta_inputs(1, counted.max_lengths(), with_answers=False)
    given = hf.Settings(family="hf", config=config, tokenizer=str(folders["llava"]))
    fresh: Any = hf.build(given, texts=[], device="cpu", task=ASK)
    assert fresh.loss(fresh.collate(IMAGES, QUESTIONS, ANSWERS)).isfinite()


def test_a_model_with_a_decoder_of_its_own_is_refused() -> None:
    config = {"model_type": "florence2"}
    with pytest.raises(SpecError, match="'florence2' on images and questions"):
        hf.build(hf.Settings(family="hf", config=config), texts=["?"], device="meta", task=ASK)


def test_no_virtual_tokens_in_front_of_an_image(folders: dict[str, Path]) -> None:
    model = build(folders["llava"], parts={"model": ""})
    assert model.part_facts["model"].task_type is None
    with pytest.raises(BenchError):
        own.put(model, {"model": "P"}, P=own.method("PROMPT_TUNING", num_virtual_tokens=2))

"""MISS: loss, preprocessing of texts and images, and the bundled weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from bench.datasets import rendered_shapes
from bench.models import miss
from bench.models.miss.model import MissModel
from bench.plugins.contracts import GenerateOptions
from tests.models.vqa import ANSWERS, MISS, Batch, batch_of, put, tiny_miss


@pytest.fixture
def model() -> MissModel:
    return tiny_miss()


@pytest.fixture
def batch(model: MissModel) -> Batch:
    return batch_of(model)


@pytest.mark.parametrize("part", ["jtm", "dec"])
def test_a_prefix_reaches_self_attention_only(model: MissModel, batch: Batch, part: str) -> None:
    put(model, {part: "prefix"})
    seen: dict[str, int] = {}

    def note(name: str) -> Any:
        return lambda _module, _args, output: seen.update({name: output[1].shape[-1]})

    for name, module in model.part(part).named_modules():
        if name.endswith("layer.1.attention.self") or name.endswith("layer.1.crossattention.self"):
            module.register_forward_hook(note(name.split(".")[-2]))
    model.loss(batch)
    questions, answers = batch["question_ids"].shape[1], batch["answer_ids"].shape[1]
    own, other = (questions, (32 // 8) ** 2 + 1) if part == "jtm" else (answers, questions)
    assert seen == {"attention": 10 + own, "crossattention": other}


@torch.no_grad()
def test_loss_is_the_released_codes_and_padding_changes_nothing(model: MissModel, batch: Batch) -> None:
    scores = model.forward_scores(batch, batch["answer_ids"][:, 1:])
    each = functional.cross_entropy(
        scores.flatten(0, 1), batch["answer_ids"][:, 1:].flatten(), label_smoothing=0.1, reduction="none"
    )
    expected = (each.view(scores.shape[:2]) * batch["answer_mask"][:, 1:]).sum(1).mean()
    torch.testing.assert_close(model.loss(batch), expected)
    wider = dict(batch)
    wider["question_ids"] = functional.pad(batch["question_ids"], (0, 7), value=model.tokens.pad)
    wider["question_mask"] = functional.pad(batch["question_mask"], (0, 7))
    torch.testing.assert_close(model.loss(wider), expected)


def test_texts_become_tokens(model: MissModel) -> None:
    tokens = model.tokens
    texts = [tokens.question("Is it a LUNG?", 6), tokens.question("color " * 50, 6)]
    words = [[tokens.words[i] for i in row] for row in texts]
    assert words == [["[ENC]", "is", "it", "a", "lung", "[SEP]"], ["[ENC]", *["color"] * 4, "[SEP]"]]
    batch = model.collate([Image.new("L", (7, 9))] * 2, ["color"] * 2, ["yes", "left lung"])
    ids, mask = batch["answer_ids"], batch["answer_mask"]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert ids[0, [0, 3]].tolist() == [tokens.dec, tokens.pad]
    assert [tokens.decode(row) for row in ids.tolist()] == ["yes", "left lung"]
    assert tokens.decode([tokens.dec, tokens.sep, *ids[0].tolist()]) == "", "an answer ends at the first [SEP]"
    assert model.cut_texts(["color " * 33, "color " * 34], ["yes"]).questions == 1


RELEASED = {"mean": (0, 0, 0), "std": (1, 1, 1), "divide_by_255": True, "interpolation": "bilinear"}
BLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "divide_by_255": False,
    "interpolation": "bicubic",
}
CHECKPOINT = {"kind": "checkpoint", "path": "miss.pth"}


@pytest.mark.parametrize(
    ("weights", "image", "expected"),
    [
        ({"kind": "hub", "id": "Salesforce/blip-vqa-base"}, {}, BLIP),
        (None, {}, BLIP),
        (CHECKPOINT, {}, RELEASED),
        (CHECKPOINT, {"size": 64, "divide_by_255": False}, RELEASED | {"divide_by_255": False}),
        (CHECKPOINT, BLIP, BLIP),
    ],
    ids=["blip", "random", "checkpoint", "one overridden", "all overridden"],
)
def test_images_are_preprocessed_as_the_weights_were_trained(
    weights: dict[str, Any] | None, image: dict[str, Any], expected: dict[str, Any]
) -> None:
    settings = miss.Settings.model_validate({"family": "miss", "weights": weights, "image": image})
    assert settings.image.model_dump(exclude={"size"}) == expected
    again = miss.Settings.model_validate_json(settings.model_dump_json())
    assert again == settings, "as a worker reads it"
    identity = settings.model_dump(exclude_defaults=True).get("image", {})
    assert ("divide_by_255" in identity) == expected["divide_by_255"], "other preprocessing is another cell"


def test_random_vision_weights_are_not_dead_and_tied_weights_stay_tied() -> None:
    """The library's default would draw them with a standard deviation of 1e-10."""
    for device in ("cpu", "meta"):
        module = miss.build(miss.Settings.model_validate(MISS), texts=ANSWERS, device=device).module
        decoder = module.text_decoder
        assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight
        assert device == "meta" or 0.01 < module.vision_model.encoder.layers[0].mlp.fc1.weight.std() < 0.03


def test_the_bundled_backbone_answers_about_pictures_it_never_saw() -> None:
    half = (0.5, 0.5, 0.5)
    settings = miss.Settings(
        family="miss",
        preset="tiny",
        image=miss.ImageSettings(mean=half, std=half),
        weights=miss.BundledWeights(kind="bundled"),
    )
    model = miss.build(settings, texts=[], device="cpu")
    model.module.eval()
    tasks = {"colour": 1, "shape": 1, "match_colour": 1, "match_shape": 1}
    stage = rendered_shapes.Stage.model_validate({"share": 1, "tasks": tasks})
    data = rendered_shapes.load(rendered_shapes.Settings(name="rendered_shapes", seed=7, stages=[stage]))
    examples = data.split("test")[:120]
    batch = model.collate([data.image(e) for e in examples], [e.question() for e in examples], [])
    answers = model.generate(batch, GenerateOptions(num_beams=3, max_new_tokens=9))
    correct = sum(answer == e.answer for answer, e in zip(answers, examples, strict=True))
    assert correct / len(examples) > 0.85
    assert sum(p.numel() for p in model.module.parameters()) < 2_000_000

"""MISS trains and generates with every method on every part it can be put on, and never looks at padding."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional

from bench import registry
from bench.methods import lora
from bench.models import miss
from bench.models.miss.model import MissModel
from bench.plugins.contracts import GenerateOptions
from bench.plugins.settings import MethodSettings
from bench.training.adapt import adapt
from tests.models.conftest import ANSWERS, QUESTIONS, TINY, make

BEAMS = GenerateOptions(num_beams=3, max_new_tokens=5)
GREEDY = GenerateOptions(num_beams=1, max_new_tokens=5)
PROMPTS = ("prefix", "ptuning_v2")
PLACES = [(p, m) for p, m in itertools.product(miss.PARTS, ("lora", "ia3", *PROMPTS)) if (p, m[0]) != ("vit", "p")]
Batch = dict[str, torch.Tensor]


def adapted(model: MissModel, part: str, method: str) -> list[torch.nn.Parameter]:
    """Put the method on the part, freeze the rest; returns what is trained, moved away from its no-op start."""
    methods: dict[str, MethodSettings] = {method: registry.load("methods", method).Settings(type=method)}
    adapt(model, miss.PARTS, {name: method if name == part else "F" for name in miss.PARTS}, methods)
    model.module.eval()
    return [p for p in model.module.parameters() if p.requires_grad]


def disturb(parameters: list[torch.nn.Parameter], amount: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=amount)


def logits(model: MissModel, batch: Batch, ids: torch.Tensor) -> torch.Tensor:
    """The decoder's scores after each of ``ids``, without generation's cache."""
    found: torch.Tensor = model.part("dec")(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        encoder_hidden_states=model._question_states(batch),
        encoder_attention_mask=batch["question_mask"],
    ).logits
    return found


@pytest.mark.parametrize(("part", "method"), PLACES)
def test_method_on_part_trains_and_generates(
    model: MissModel, batch: Batch, images: Sequence[Image.Image], part: str, method: str
) -> None:
    trained = adapted(model, part, method)
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert trained
    assert all(p.grad is not None for p in trained)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    before = logits(model, batch, batch["answer_ids"])
    disturb(trained, 0.5)
    assert (logits(model, batch, batch["answer_ids"]) - before).abs().max() > 1e-4

    ids = torch.full((len(QUESTIONS), 1), model.tokens.dec)
    for _ in range(GREEDY.max_new_tokens):
        ids = torch.cat([ids, logits(model, batch, ids)[:, -1:].argmax(-1)], dim=1)
    assert model.generate(batch, GREEDY) == [model.tokens.decode(row) for row in ids.tolist()]

    together = model.generate(batch, BEAMS)
    alone = [model.generate(model.collate([i], [q], []), BEAMS)[0] for i, q in zip(images, QUESTIONS, strict=True)]
    assert together == alone


def test_new_layers_are_trained_beside_lora(model: MissModel, batch: Batch, images: Sequence[Image.Image]) -> None:
    new = {"jtm": ["crossattention"], "dec": ["crossattention", "transform"]}
    own = r".*\.attention\.self\.(query|value)"
    method = lora.Settings(type="lora", targets={"jtm": own, "dec": own}, modules_to_save=new)
    before = model.generate(batch, BEAMS)
    adapt(model, miss.PARTS, {"vit": "F", "jtm": "new", "dec": "new"}, {"new": method})
    model.module.eval()
    assert model.generate(batch, BEAMS) == before, "the copies start as the layers were"
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    trained = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
    whole = {name for name in trained if "lora_" not in name}
    assert {name.split(".modules_to_save.")[0].split(".")[-1] for name in whole} == {"crossattention", "transform"}
    assert all(trained[name].grad.abs().sum() > 0 for name in whole)
    disturb(list(trained.values()), 0.5)
    alone = [model.generate(model.collate([i], [q], []), BEAMS)[0] for i, q in zip(images, QUESTIONS, strict=True)]
    assert model.generate(batch, BEAMS) == alone


@pytest.mark.parametrize("method", PROMPTS)
def test_prompts_on_the_decoder_change_generated_answers(model: MissModel, batch: Batch, method: str) -> None:
    trained = adapted(model, "dec", method)
    before = model.generate(batch, BEAMS)
    disturb(trained, 5)
    assert model.generate(batch, BEAMS) != before


@pytest.mark.parametrize("part", ["jtm", "dec"])
def test_a_prefix_reaches_self_attention_only(model: MissModel, batch: Batch, part: str) -> None:
    adapted(model, part, "prefix")
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


def test_answers_differ_between_questions(model: MissModel, batch: Batch) -> None:
    """The other tests compare answers: they must not all be the same."""
    assert len(set(model.generate(batch, BEAMS))) > 1


def test_loss_is_the_released_codes(model: MissModel, batch: Batch) -> None:
    scores = logits(model, batch, batch["answer_ids"])[:, :-1]
    each = functional.cross_entropy(
        scores.flatten(0, 1), batch["answer_ids"][:, 1:].flatten(), label_smoothing=0.1, reduction="none"
    )
    expected = (each.view(scores.shape[:2]) * batch["answer_mask"][:, 1:]).sum(1).mean()
    torch.testing.assert_close(model.loss(batch), expected)


def test_padding_of_the_question_changes_nothing(model: MissModel, batch: Batch) -> None:
    wider = dict(batch)
    wider["question_ids"] = functional.pad(batch["question_ids"], (0, 7), value=model.tokens.pad)
    wider["question_mask"] = functional.pad(batch["question_mask"], (0, 7))
    torch.testing.assert_close(model.loss(wider), model.loss(batch))


def test_texts_become_tokens(model: MissModel) -> None:
    tokens = model.tokens
    texts = [tokens.question("Is it a LUNG?", 6), tokens.question("color " * 50, 6)]
    words = [[tokens.words[i] for i in row] for row in texts]
    assert words == [["[ENC]", "is", "it", "a", "lung", "[SEP]"], ["[ENC]", *["color"] * 4, "[SEP]"]]
    batch = model.collate([Image.new("L", (7, 9))] * 2, ["color"] * 2, ["yes", "left lung"])
    ids, mask = batch["answer_ids"], batch["answer_mask"]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert ids[0, 0] == tokens.dec
    assert ids[0, 3] == tokens.pad
    assert [tokens.decode(row) for row in ids.tolist()] == ["yes", "left lung"]
    assert tokens.decode([tokens.dec, tokens.sep, *ids[0].tolist()]) == "", "an answer ends at the first [SEP]"


def test_images_become_pixels() -> None:
    white = Image.new("L", (7, 9), 255)
    own = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    model = make(miss.Settings.model_validate(TINY | {"image": own}))
    pixels = model.collate([white], ["color ?"], [])["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert torch.equal(pixels, torch.full_like(pixels, 2.0))
    released = {"size": 32, "mean": (0, 0, 0), "std": (1, 1, 1), "divide_by_255": True}
    model = make(miss.Settings.model_validate(TINY | {"image": released}))
    pixels = model.collate([white], ["color ?"], [])["pixel_values"]
    torch.testing.assert_close(pixels, torch.full_like(pixels, 1 / 255))


RELEASED = {"mean": (0, 0, 0), "std": (1, 1, 1), "divide_by_255": True, "interpolation": "bilinear"}
BLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "divide_by_255": False,
    "interpolation": "bicubic",
}


@pytest.mark.parametrize(
    ("weights", "image", "expected"),
    [
        ({"kind": "hub", "id": "Salesforce/blip-vqa-base"}, {}, BLIP),
        (None, {}, BLIP),
        ({"kind": "checkpoint", "path": "miss.pth"}, {}, RELEASED),
        (
            {"kind": "checkpoint", "path": "miss.pth"},
            {"size": 64, "divide_by_255": False},
            RELEASED | {"divide_by_255": False},
        ),
        ({"kind": "checkpoint", "path": "blip.pth"}, BLIP, BLIP),
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


def test_drop_path_acts_in_training_only(batch: Batch) -> None:
    vision = {**TINY["vision"], "drop_path": 0.5}  # type: ignore[dict-item]
    model = make(miss.Settings.model_validate(TINY | {"vision": vision}))
    vit = model.part("vit")
    with torch.no_grad():
        still = [vit(pixel_values=batch["pixel_values"])[0] for _ in range(2)]
        vit.train()
        moving = torch.stack([vit(pixel_values=batch["pixel_values"])[0] for _ in range(8)])
    assert torch.equal(*still)
    assert (moving - still[0]).abs().amax(dim=(1, 2, 3)).max() > 0


def test_random_vision_weights_are_not_dead(settings: miss.Settings) -> None:
    """The library's default would draw them with a standard deviation of 1e-10."""
    built = miss.build(settings, texts=ANSWERS, device="cpu")
    assert 0.01 < built.module.vision_model.encoder.layers[0].mlp.fc1.weight.std() < 0.03


def test_tied_weights_stay_tied_on_meta(settings: miss.Settings) -> None:
    decoder = miss.build(settings, texts=ANSWERS, device="meta").module.text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"text": {"hidden_size": 64}}, "must be equal"),
        ({"image": {"size": 30}}, "not a multiple of patch_size"),
        ({"vision": {"hidden_size": 32, "num_attention_heads": 5}}, "multiple of vision.num_attention_heads"),
        ({"weights": {"kind": "dinov2_minilm"}}, "need preset small"),
    ],
)
def test_impossible_dimensions_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        miss.Settings.model_validate(TINY | change)

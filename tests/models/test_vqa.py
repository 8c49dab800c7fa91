"""MISS and OFA train and answer with every method on every part, and never read padding."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from PIL import Image

from bench.models import miss, ofa
from bench.models.ofa.search import beam_search
from bench.models.ofa.tokens import EOS, PAD
from tests.contracts.model_cases import greedy, next_scores
from tests.models.vqa import (
    BEAMS,
    GREEDY,
    METHODS,
    QUESTIONS,
    answers_alone,
    assert_trained,
    batch_of,
    disturb,
    images,
    micro_ofa,
    put,
    tiny_miss,
)

MAKERS: dict[str, Any] = {"miss": tiny_miss, "ofa": micro_ofa}
PLACES = [
    (family, part, method)
    for family, parts in (("miss", miss.PARTS), ("ofa", ofa.PARTS))
    for part, method in itertools.product(parts, METHODS)
    if (part, method[0]) != ("vit", "p")
]


def ofa_beams(model: Any, question: int) -> str:
    """OFA's beam search, each beam's whole text scored again for every token."""
    one = model.collate([images()[question]], [QUESTIONS[question]], [])
    batch = {name: tensor.expand(BEAMS.num_beams, *tensor.shape[1:]) for name, tensor in one.items()}
    texts = torch.zeros(BEAMS.num_beams, 0, dtype=torch.long)

    def advance(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        nonlocal texts
        texts = torch.cat([texts[rows], tokens[:, None]], dim=1)
        return next_scores(model, batch, texts)

    first = next_scores(model, one, texts[:1])
    best = beam_search(first, advance, beams=BEAMS.num_beams, steps=BEAMS.max_new_tokens, eos=EOS, pad=PAD)
    return str(model.tokens.decode(best[0].tolist()))


@pytest.mark.parametrize(("family", "part", "method"), PLACES)
def test_method_on_part_trains_and_generates(family: str, part: str, method: str) -> None:
    model = MAKERS[family]()
    batch = batch_of(model)
    trained = put(model, {part: method})
    assert_trained(model, trained)
    texts = torch.full((len(QUESTIONS), 3), model.answer_ids("red")[-2])
    before = next_scores(model, batch, texts)
    disturb(trained, 0.5)
    assert (next_scores(model, batch, texts) - before).abs().max() > 1e-4
    assert model.generate(batch, GREEDY) == greedy(model, batch, GREEDY.max_new_tokens)
    together = model.generate(batch, BEAMS)
    assert together == answers_alone(model)
    if family == "ofa":
        assert together == [ofa_beams(model, i) for i in range(len(QUESTIONS))]


@pytest.mark.parametrize("method", ["prefix", "ptuning_v2"])
@pytest.mark.parametrize(("family", "part"), [("miss", "dec"), ("ofa", "decoder")])
def test_prompts_on_the_decoder_change_generated_answers(family: str, part: str, method: str) -> None:
    model = MAKERS[family]()
    trained, batch = put(model, {part: method}), batch_of(model)
    before = model.generate(batch, BEAMS)
    assert len(set(before)) > 1, "equal answers would show nothing"
    disturb(trained, 5)
    assert model.generate(batch, BEAMS) != before


@pytest.mark.parametrize(
    ("family", "image", "level", "value"),
    [
        ("miss", {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}, 255, 2.0),
        ("miss", {"mean": (0, 0, 0), "std": (1, 1, 1), "divide_by_255": True}, 255, 1 / 255),
        ("ofa", None, 255, 1.0),
        ("ofa", None, 0, -1.0),
    ],
)
def test_images_become_pixels(family: str, image: dict[str, Any] | None, level: int, value: float) -> None:
    model = MAKERS[family](**({"image": {"size": 32} | image} if image else {}))
    pixels = model.collate([Image.new("L", (7, 9), level)], ["color"], [])["pixel_values"]
    torch.testing.assert_close(pixels, torch.full_like(pixels, value))
    assert pixels.shape == (1, 3, model.facts()["image_size"], model.facts()["image_size"])

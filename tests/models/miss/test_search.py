"""The two switches of MISS's generation, on constructed cases whose right answers are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import LibraryMismatchError, SpecError
from bench.models.miss.model import MissModel
from bench.patches.transformers import length_as_transformers_4
from bench.plugins.contracts import GenerateOptions
from bench.spec.cell import expand
from bench.spec.load import read_spec
from tests.models.vqa import QUESTIONS, Batch, batch_of, images, put, tiny_miss

TOKENS = 9
LONG = -2.0
"""Log-likelihood of nine times ``a``, the cut answer: -0.222 by nine tokens, -0.2 by ten."""


@pytest.fixture
def model() -> MissModel:
    return tiny_miss()


@pytest.fixture
def batch(model: MissModel) -> Batch:
    return batch_of(model)


def scripted(model: MissModel, short: float) -> None:
    """Let the decoder say ``b`` and end with log-likelihood ``short``, or ``a`` again and again, in all ``LONG``."""
    first_a = math.log(1 - math.exp(short) - 1e-6)
    again = (LONG - first_a) / (TOKENS - 1)
    ids = {word: model.tokens.words.index(word) for word in ("a", "b", "[SEP]", "[DEC]")}
    table = torch.full((model.tokens.size, model.module.config.text_config.vocab_size), -30.0)
    table[ids["[DEC]"], ids["b"]], table[ids["[DEC]"], ids["a"]] = short, first_a
    table[ids["b"], ids["[SEP]"]] = 0.0
    table[ids["a"], ids["a"]], table[ids["a"], ids["[SEP]"]] = again, math.log(1 - math.exp(again))

    def script(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        output.logits = table[kwargs["input_ids"]]
        return output

    model.part("dec").register_forward_hook(script, with_kwargs=True)


def answers(model: MissModel, batch: Batch, **options: Any) -> list[str]:
    return model.generate(batch, GenerateOptions(num_beams=3, max_new_tokens=TOKENS, **options))


@pytest.mark.parametrize(
    ("short", "generated", "as_4"),
    [
        (-0.39, "b", "b"),  # by two tokens, the end included: -0.195, better than either
        (-0.42, "b", " ".join("a" * TOKENS)),  # -0.21, between the two
        (-0.46, " ".join("a" * TOKENS), " ".join("a" * TOKENS)),  # -0.23, worse than either
    ],
)
def test_a_cut_answer_is_divided_as_transformers_4_does(
    model: MissModel, batch: Batch, short: float, generated: str, as_4: str
) -> None:
    scripted(model, short)
    assert answers(model, batch) == [generated] * len(QUESTIONS)
    assert answers(model, batch, length_denominator="as_transformers_4") == [as_4] * len(QUESTIONS)
    assert answers(model, batch) == [generated] * len(QUESTIONS), "the switch stays on only while it is asked for"


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_it_is_so_with_an_adapter_on_the_decoder(model: MissModel, batch: Batch, method: str) -> None:
    scripted(model, -0.42)
    put(model, {"dec": method})
    assert answers(model, batch) == ["b"] * len(QUESTIONS)
    assert answers(model, batch, length_denominator="as_transformers_4") == [" ".join("a" * TOKENS)] * len(QUESTIONS)


def test_a_library_without_the_place_is_refused() -> None:
    class Model:
        pass

    with pytest.raises(LibraryMismatchError, match="_update_finished_beams"), length_as_transformers_4(Model(), 0):
        pass


def test_with_it_an_answer_depends_on_its_batch(model: MissModel) -> None:
    """What the switch costs: the scores of a short question move with the longest one beside it."""
    alone = model.collate(images()[:1], QUESTIONS[:1], [])
    beside = model.collate(images()[:2], QUESTIONS[:2], [])
    scores: list[torch.Tensor] = []
    model.part("dec").register_forward_hook(lambda _module, _args, output: scores.append(output.logits[0, -1].clone()))
    for attend in (False, True):
        for batch in (alone, beside):
            model.generate(batch, GenerateOptions(num_beams=1, max_new_tokens=1, attend_padding=attend))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert not torch.allclose(scores[2], scores[3], atol=1e-3)
    assert torch.allclose(scores[0], scores[2], atol=1e-5), "alone there is no padding"


SPEC = """
model: {family: FAMILY}
data: {name: easy_vqa}
train: {steps: 1, batch_size: 1, optimizer: {lr: 1e-3}}
evaluate: {batch_size: 1, SWITCH}
parts: {PARTS}
"""


@pytest.mark.parametrize("switch", ["length_denominator: as_transformers_4", "attend_padding: true"])
def test_a_family_without_the_switches_refuses_them(tmp_path: Path, switch: str) -> None:
    path = tmp_path / "spec.yaml"
    spec = SPEC.replace("SWITCH", switch)
    path.write_text(spec.replace("FAMILY", "miss").replace("PARTS", "vit: F, jtm: F, dec: T"), encoding="utf-8")
    (cell,) = expand(read_spec(path).resolve("default"))
    assert cell.evaluate.options() != GenerateOptions(num_beams=3, max_new_tokens=10)
    path.write_text(spec.replace("FAMILY", "ofa").replace("PARTS", "encoder: F, decoder: T"), encoding="utf-8")
    words = rf"(?s)evaluate\.{switch.split(':')[0]}.*family\s+ofa has no\s+such switch"
    with pytest.raises(SpecError, match=words):
        read_spec(path).resolve("default")

"""Beam search against all sequences there are, and the trie against a set of them."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from bench.models.ofa.search import DEAD, Trie, beam_search
from bench.plugins.contracts import GenerateOptions
from tests.models.vqa import ANSWERS, batch_of, micro_ofa

EOS, PAD, VOCABULARY, LONGEST = 2, 1, 6, 4


class Chain:
    """A language model whose next token depends on the last two; counts the rows it is asked for."""

    def __init__(self, seed: int, batch: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scores = 2 * torch.randn(batch, VOCABULARY + 1, VOCABULARY + 1, VOCABULARY, generator=generator)
        self.last = torch.full((batch, 2), VOCABULARY)

    def first(self) -> torch.Tensor:
        return self.scores[:, VOCABULARY, VOCABULARY]

    def search(self, beams: int, trie: Trie | None = None) -> list[list[int]]:
        batch = len(self.scores)
        texts = self.last.repeat_interleave(beams, 0)
        example = torch.arange(batch).repeat_interleave(beams)

        def advance(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            nonlocal texts
            texts = torch.stack([texts[rows, 1], tokens], dim=1)
            return self.scores[example, texts[:, 0], texts[:, 1]]

        found = beam_search(self.first(), advance, beams=beams, steps=LONGEST, eos=EOS, pad=PAD, trie=trie)
        return [row[: row.index(EOS) + 1] if EOS in row else row for row in found.tolist()]

    def likelihood(self, example: int, text: tuple[int, ...], answers: set[tuple[int, ...]] | None) -> float:
        total, last = 0.0, (VOCABULARY, VOCABULARY)
        for i, token in enumerate(text):
            scores = self.scores[example, last[0], last[1]].clone()
            if answers is not None:
                allowed = {other[i] for other in answers if other[:i] == text[:i] and len(other) > i}
                scores[[t for t in range(VOCABULARY) if t not in allowed]] = -torch.inf
            total += scores.log_softmax(-1)[token].item()
            last = (last[1], token)
        return total


def every_text() -> list[tuple[int, ...]]:
    words = [t for t in range(VOCABULARY) if t != EOS]
    ended = [(*w, EOS) for n in range(LONGEST) for w in itertools.product(words, repeat=n)]
    return ended + list(itertools.product(words, repeat=LONGEST))


@pytest.mark.parametrize("seed", range(5))
def test_with_enough_beams_the_likeliest_text_is_found(seed: int) -> None:
    chain = Chain(seed, batch=2)
    for example, found in enumerate(chain.search(beams=200)):
        best = max(every_text(), key=lambda text: chain.likelihood(example, text, None))
        assert tuple(found) == best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beams", [1, 3, 40])
def test_only_answers_of_the_trie_are_found(seed: int, beams: int) -> None:
    answers = set(random.Random(seed).sample([t for t in every_text() if EOS in t], 12))
    chain = Chain(seed, batch=3)
    trie = Trie.of(sorted(answers), VOCABULARY)
    for example, found in enumerate(chain.search(beams, trie)):
        assert tuple(found) in answers
        if beams == 40:
            assert tuple(found) == max(answers, key=lambda text: chain.likelihood(example, text, answers))


def test_a_trie_knows_its_sequences() -> None:
    trie = Trie.of([[3, 4, EOS], [3, EOS], [5, 4, EOS]], VOCABULARY)
    start = torch.tensor([0, 0, 0])
    at = trie.follow(start, torch.tensor([3, 5, 4]))
    assert at[2] == DEAD
    allowed = [row.nonzero().flatten().tolist() for row in trie.allowed(torch.cat([start[:1], at]))]
    assert allowed == [[3, 5], [EOS, 4], [4], []]
    assert trie.follow(at, torch.tensor([EOS, EOS, 4])).tolist()[1:] == [DEAD, DEAD]


def test_a_model_answers_with_known_answers_only() -> None:
    free, bound = micro_ofa(), micro_ofa(constrain="answers")
    options = GenerateOptions(num_beams=3, max_new_tokens=6)
    bound.learn_answers(ANSWERS)
    assert set(bound.generate(batch_of(bound), options)) <= set(ANSWERS)
    assert not set(free.generate(batch_of(free), options)) <= set(ANSWERS)

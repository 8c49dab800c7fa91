"""The shapes of the batches an estimate runs: from the data's annotations where they are here, else from the spec."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from bench.errors import BenchError
from bench.plugins.contracts import BenchModel, Example, InputLengths, PairModel
from bench.spec.cell import Cell
from bench.training.data import LoadedData, load_data, pairs_of

_VARIED = 3
"""Batches of different lengths before the longest one: their sizes fragment the allocator's cache, which is most of the
way from allocated to reserved memory. With SLAKE's lengths, 40 batches add at most 1.4 % to the reserved peak."""
_SHARES = (0.5, 0.25, 0.75)
"""Lengths of these batches where no annotations tell: shares of the longest."""
_SHORTEST = 3
"""Tokens: two special ones and a word."""
_MAX_EXAMPLES = 20_000
"""Of a data set at least twice as large, so many or more, evenly spread, are looked at: the longest may be missed."""
_SEED = 0
"""Of the order: the same for all seeds of a cell, whose costs are the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotations:
    """A cell's data without its images, or why there is none."""

    data: LoadedData | None
    missing: str = ""

    def texts(self) -> Sequence[str]:
        """For a vocabulary, as in a run."""
        return self.data.source.texts() if self.data else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """Lengths of the batches to run, the longest last."""

    train: tuple[InputLengths, ...]
    test: tuple[InputLengths, ...]
    source: str
    """``annotations``, or ``spec`` and why."""


class Library:
    """Opens each data set once, for all the cells that use it."""

    def __init__(self) -> None:
        self._opened: dict[str, Annotations] = {}
        self._shapes: dict[tuple[object, ...], Shapes] = {}

    def annotations(self, cell: Cell) -> Annotations:
        """Those of the cell's data."""
        key = cell.data.model_dump_json()
        if key not in self._opened:
            try:
                self._opened[key] = Annotations(data=load_data(cell.data, images=False))
            except BenchError as error:
                self._opened[key] = Annotations(data=None, missing=str(error).splitlines()[0])
        return self._opened[key]

    def shapes(self, cell: Cell, model: BenchModel) -> Shapes:
        """Lengths of the cell's batches: a batch is as long as its longest question and its longest answer, the last
        batch as the longest of all batches."""
        annotations = self.annotations(cell)
        if annotations.data is None:
            return _from_spec(model, f"spec ({annotations.missing})")
        if not model.has_vocabulary:
            return _from_spec(model, "spec (the tokenizer of the weights is not here)")
        key = (
            cell.data.model_dump_json(),
            cell.model.model_dump_json(),
            cell.train.batch_size,
            cell.train.shuffle,
            cell.evaluate.batch_size,
        )
        if key not in self._shapes:
            self._shapes[key] = Shapes(
                train=_batches(model, annotations.data.train, cell.train.batch_size, shuffled=cell.train.shuffle),
                test=_batches(model, annotations.data.test, cell.evaluate.batch_size, shuffled=False)[-1:],
                source="annotations",
            )
        return self._shapes[key]


def _from_spec(model: BenchModel, source: str) -> Shapes:
    longest = model.max_lengths()
    varied = tuple(
        InputLengths(
            question_tokens=_share(longest.question_tokens, share), answer_tokens=_share(longest.answer_tokens, share)
        )
        for share in _SHARES
    )
    return Shapes(train=(*varied, longest), test=(longest,), source=source)


def _share(longest: int, share: float) -> int:
    return min(longest, max(_SHORTEST, round(share * longest)))


def _batches(model: BenchModel, examples: Sequence[Example], size: int, *, shuffled: bool) -> tuple[InputLengths, ...]:
    order = range(0, len(examples), max(1, len(examples) // _MAX_EXAMPLES))
    places = random.Random(_SEED).sample(order, len(order)) if shuffled else list(order)
    batches = [
        _lengths(model, [examples[place] for place in places[start : start + size]])
        for start in range(0, len(places), size)
    ]
    longest = InputLengths(
        question_tokens=max(each.question_tokens for each in batches),
        answer_tokens=max(each.answer_tokens for each in batches),
    )
    return (*list(dict.fromkeys(batches))[:_VARIED], longest)


def _lengths(model: BenchModel, examples: Sequence[Example]) -> InputLengths:
    questions, answers = [text for e in examples for text in e.questions], [e.answer for e in examples]
    if pairs := pairs_of(model, [e for e in examples for _ in e.questions]):
        return cast(PairModel, model).lengths(questions, answers, pairs)
    return model.lengths(questions, answers)

"""Data sets without images, opened once for all cells, and the lengths of the batches that an estimate runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from bench.errors import BenchError
from bench.plugins.contracts import BenchModel, Example, InputLengths, PairModel
from bench.spec.cell import Cell
from bench.training.data import LoadedData, load_data, pairs_of

# Batches of different lengths before the longest: their sizes fragment the allocator's cache, which is most of the way
# from allocated to reserved memory. With SLAKE's lengths, 40 batches add at most 1.4 % to the reserved peak.
_VARIED_BATCHES = 3
_LENGTH_SHARES = (0.5, 0.25, 0.75)  # of the longest, for these batches where there are no annotations
_MIN_TOKENS = 3  # two special ones and a word
# A data set at least twice as large is sampled: at least so many evenly spaced examples, perhaps without the longest.
_MAX_EXAMPLES = 20_000
_SEED = 0  # of the order: the same for all seeds of a cell, which share their costs


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLengths:
    """Lengths of the batches to run, the longest last."""

    train: tuple[InputLengths, ...]
    test: tuple[InputLengths, ...]
    source: str
    """``annotations``, or ``spec`` with the reason."""


class DatasetCache:
    """Opens each data set once, for all the cells that use it."""

    def __init__(self) -> None:
        self._data: dict[str, LoadedData | str] = {}  # settings -> data, or why they are missing
        self._lengths: dict[tuple[object, ...], BatchLengths] = {}

    def data(self, cell: Cell) -> LoadedData | None:
        """Data of the cell without images; None if they are missing."""
        loaded = self._load(cell)
        return None if isinstance(loaded, str) else loaded

    def texts(self, cell: Cell) -> Sequence[str]:
        """Texts for a vocabulary, as in a run."""
        data = self.data(cell)
        return data.source.texts() if data else ()

    def lengths(self, cell: Cell, model: BenchModel) -> BatchLengths:
        """Lengths of the cell's batches, from the annotations, else from the spec.

        A batch is as long as its longest question and its longest answer, the last one as the longest of all batches.
        """
        data = self._load(cell)
        if isinstance(data, str):
            return _from_spec(model, f"spec ({data})")
        if not model.has_vocabulary:
            return _from_spec(model, "spec (the tokenizer of the weights is not here)")
        key = (
            cell.data.model_dump_json(),
            cell.model.model_dump_json(),
            cell.train.batch_size,
            cell.train.shuffle,
            cell.evaluate.batch_size,
        )
        if key not in self._lengths:
            self._lengths[key] = BatchLengths(
                train=_batches(model, data.train, cell.train.batch_size, shuffled=cell.train.shuffle),
                test=_batches(model, data.test, cell.evaluate.batch_size, shuffled=False)[-1:],
                source="annotations",
            )
        return self._lengths[key]

    def _load(self, cell: Cell) -> LoadedData | str:
        key = cell.data.model_dump_json()
        if key not in self._data:
            try:
                self._data[key] = load_data(cell.data, images=False)
            except BenchError as error:
                self._data[key] = str(error).splitlines()[0]
        return self._data[key]


def _from_spec(model: BenchModel, source: str) -> BatchLengths:
    longest = model.max_lengths()

    def scaled(tokens: int, share: float) -> int:
        return min(tokens, max(_MIN_TOKENS, round(share * tokens)))

    varied = [
        InputLengths(
            question_tokens=scaled(longest.question_tokens, share), answer_tokens=scaled(longest.answer_tokens, share)
        )
        for share in _LENGTH_SHARES
    ]
    return BatchLengths(train=(*varied, longest), test=(longest,), source=source)


def _batches(model: BenchModel, examples: Sequence[Example], size: int, *, shuffled: bool) -> tuple[InputLengths, ...]:
    indices: Sequence[int] = range(0, len(examples), max(1, len(examples) // _MAX_EXAMPLES))
    if shuffled:
        indices = random.Random(_SEED).sample(indices, len(indices))
    batches = [
        _batch_lengths(model, [examples[index] for index in indices[start : start + size]])
        for start in range(0, len(indices), size)
    ]
    longest = InputLengths(
        question_tokens=max(batch.question_tokens for batch in batches),
        answer_tokens=max(batch.answer_tokens for batch in batches),
    )
    return (*list(dict.fromkeys(batches))[:_VARIED_BATCHES], longest)


def _batch_lengths(model: BenchModel, examples: Sequence[Example]) -> InputLengths:
    questions, answers = [text for e in examples for text in e.questions], [e.answer for e in examples]
    if pairs := pairs_of(model, [e for e in examples for _ in e.questions]):
        return cast(PairModel, model).lengths(questions, answers, pairs)
    return model.lengths(questions, answers)

"""What MISS and OFA share: models that answer questions about images in words, each part one module."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.errors import WeightsError
from bench.models.common.tokens import meta_ids
from bench.plugins.contracts import CutTexts, InputLengths, PartFacts

Batch = dict[str, torch.Tensor]


class VqaTokens:
    """Texts to token ids and back."""

    def __init__(
        self,
        tokenizer: Any,
        size: int,
        files: Mapping[str, bytes],
        *,
        question_start: Sequence[int],
        answer_start: Sequence[int],
        end: int,
        special: Collection[int],
    ) -> None:
        """``size``: rows that an embedding needs; ``files``: name -> content of the tokenizer's files."""
        self.size = size
        self.end = end
        self._tokenizer = tokenizer
        self._files = files
        self._starts = question_start, answer_start
        self._special = frozenset(special)
        self._pieces: dict[str, list[int]] = {}

    def embedding_rows(self, wanted: int | None) -> int:
        """Rows of an embedding: ``wanted``, or one per token for null and 0. Raises WeightsError for too few."""
        if wanted and self.size > wanted:
            raise WeightsError(f"the tokenizer has {self.size} tokens, the model only vocab_size {wanted}")
        return wanted or self.size

    def question(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Ids of a question between its special tokens, cut to ``max_tokens``; null: uncut."""
        return self._framed(self._starts[0], text, max_tokens)

    def answer(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Ids of an answer between its special tokens, cut to ``max_tokens``; null: uncut."""
        return self._framed(self._starts[1], text, max_tokens)

    def _framed(self, start: Sequence[int], text: str, max_tokens: int | None) -> list[int]:
        room = None if max_tokens is None else max_tokens - len(start) - 1
        return [*start, *self.pieces(text)[:room], self.end]

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        if text not in self._pieces:  # every text is read for lengths, cuts and batches
            self._pieces[text] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._pieces[text]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        for name, content in self._files.items():
            (folder / name).write_bytes(content)

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to the first end token, special tokens removed."""
        kept: list[int] = []
        for token in ids:
            if token == self.end:
                break
            if token not in self._special:
                kept.append(token)
        return str(self._tokenizer.decode(kept)).strip()


class VqaModel:
    """A built model, each part a module of ``module``; see ``bench.plugins.contracts.TextModel``."""

    def __init__(
        self,
        module: torch.nn.Module,
        modules: Mapping[str, str],
        tokens: VqaTokens,
        facts: Mapping[str, PartFacts],
        *,
        max_lengths: InputLengths,
        has_vocabulary: bool,
    ) -> None:
        """``modules``: part -> its module's name."""
        self.module: Any = module
        self.tokens = tokens
        self.part_facts = facts
        self.has_vocabulary = has_vocabulary
        self._modules = modules
        self._max_lengths = max_lengths

    def part(self, name: str) -> torch.nn.Module:
        """The part's module, adapted or not."""
        part: torch.nn.Module = self.module.get_submodule(self._modules[name])
        return part

    def bare_part(self, name: str) -> Any:
        """The part's own module inside a wrapper of peft."""
        part: Any = self.part(name)
        return part.get_base_model() if hasattr(part, "get_base_model") else part

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in place of the part."""
        setattr(self.module, self._modules[name], adapted)

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset({self.tokens.end})

    def max_lengths(self) -> InputLengths:
        """``question_max_tokens`` and ``answer_max_tokens`` of the settings."""
        return self._max_lengths

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """Tokens of the longest question and of the longest answer."""
        return InputLengths(
            question_tokens=max(len(self.question_ids(text)) for text in dict.fromkeys(questions)),
            answer_tokens=max(len(self.answer_ids(text)) for text in dict.fromkeys(answers)),
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str]) -> CutTexts:
        """Number of texts longer than the settings allow."""
        return CutTexts(
            questions=sum(self.question_ids(text) != self.tokens.question(text) for text in questions),
            answers=sum(self.answer_ids(text) != self.tokens.answer(text) for text in answers),
        )

    def question_ids(self, text: str) -> list[int]:
        """Ids of a question, cut to the settings' length."""
        return self.tokens.question(text, self._max_lengths.question_tokens)

    def answer_ids(self, text: str) -> list[int]:
        """Ids of a training answer, cut to the settings' length."""
        return self.tokens.answer(text, self._max_lengths.answer_tokens)


def meta_inputs(batch_size: int, edge: int, tokens: Mapping[str, int]) -> Batch:
    """``pixel_values`` (batch, 3, edge, edge) and ``meta_ids`` of ``tokens``, on meta."""
    return {"pixel_values": torch.empty(batch_size, 3, edge, edge, device="meta"), **meta_ids(batch_size, tokens)}


def save_tensors(state: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, floating-point tensors in fp32."""
    from safetensors.torch import save_file

    floats = {name: t.detach().float() if t.is_floating_point() else t for name, t in state.items()}
    save_file({name: t.cpu().contiguous() for name, t in floats.items()}, path, metadata=metadata)

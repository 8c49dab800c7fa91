"""The common half of MISS and OFA: models whose parts are modules, which answer a question about an image in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.plugins.contracts import CutTexts, InputLengths, PartFacts

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

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
        if text not in self._pieces:
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
    """A built model; see ``bench.plugins.contracts.TextModel``. Each part is a module of ``module``."""

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

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in the place of the part."""
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
        """Number of texts that are longer than the settings allow."""
        return CutTexts(
            questions=sum(self.question_ids(text) != self.tokens.question(text) for text in questions),
            answers=sum(self.answer_ids(text) != self.tokens.answer(text) for text in answers),
        )

    def question_ids(self, text: str) -> list[int]:
        """Ids of a question as the model reads it."""
        return self.tokens.question(text, self._max_lengths.question_tokens)

    def answer_ids(self, text: str) -> list[int]:
        """Ids of an answer as the model is trained on it."""
        return self.tokens.answer(text, self._max_lengths.answer_tokens)


def stack_pixels(images: Sequence[Image], edge: int, resample: Resampling) -> torch.Tensor:
    """Images resized to squares, RGB 0..255, fp32 of shape (batch, 3, edge, edge)."""
    rows = [np.asarray(image.convert("RGB").resize((edge, edge), resample), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


def meta_inputs(batch_size: int, edge: int, tokens: Mapping[str, int]) -> Batch:
    """``pixel_values`` (batch, 3, edge, edge), and int64 tensors (batch, tokens) of these names, all on meta."""
    pixels = {"pixel_values": torch.empty(batch_size, 3, edge, edge, device="meta")}
    return pixels | {
        name: torch.empty(batch_size, length, dtype=torch.long, device="meta") for name, length in tokens.items()
    }


def save_tensors(state: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, floating-point tensors in fp32."""
    from safetensors.torch import save_file

    floats = {name: t.detach().float() if t.is_floating_point() else t for name, t in state.items()}
    save_file({name: t.cpu().contiguous() for name, t in floats.items()}, path, metadata=metadata)

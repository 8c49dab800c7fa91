"""OFA's tokenizers: GPT-2's byte-pair encoding in fairseq's order of tokens, and one of a data set's own words."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import WeightsError
from bench.models.ofa import files as _ofa_files

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
BOS, PAD, EOS, UNK = range(len(SPECIAL))
"""fairseq's first four tokens."""
CODES, BINS = 8192, 1000
"""Tokens for pieces of images and for coordinates, behind the words and ``<mask>``."""
_WORD = re.compile(r"\?|[^\s?]+")


class Tokens(ABC):
    """Texts to token ids and back."""

    def __init__(self, size: int) -> None:
        self.size = size
        """Rows that an embedding needs."""
        self._counts: dict[str, int] = {}

    @abstractmethod
    def pieces(self, text: str) -> list[int]:
        """Ids of a text without special tokens; it starts a word."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """Text of ids without special tokens."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""

    def question(self, text: str, *, max_words: int, max_tokens: int) -> list[int]:
        """``<s> ... </s>``: lower case, at most so many words, a question mark at its end, as the released code."""
        return [BOS, *self.pieces(normalised(text, max_words))[: max_tokens - 2], EOS]

    def answer(self, text: str, *, max_tokens: int) -> list[int]:
        """``... </s>``."""
        return [*self.pieces(" ".join(text.split()))[: max_tokens - 1], EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to the first ``</s>``, special tokens removed."""
        kept: list[int] = []
        for token in ids:
            if token == EOS:
                break
            if token >= len(SPECIAL):
                kept.append(token)
        return self.text(kept).strip()


class WordTokens(Tokens):
    """Every word of the data set is a token."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(len(SPECIAL) + len(words))
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(words, start=len(SPECIAL))}

    def pieces(self, text: str) -> list[int]:
        """Words, and question marks on their own, in lower case."""
        return [self._ids.get(word, UNK) for word in _WORD.findall(text.lower())]

    def text(self, ids: Sequence[int]) -> str:
        """Words with spaces between; rows of the embedding that mean no word are left out."""
        return " ".join(self.words[i - len(SPECIAL)] for i in ids if i < self.size)

    def save(self, folder: Path) -> None:
        """One word a line."""
        (folder / _ofa_files.WORDS).write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")


class BpeTokens(Tokens):
    """Byte pairs: ``encoder.json`` and ``vocab.bpe`` are GPT-2's, ``dict.txt`` lists its ids in fairseq's order."""

    def __init__(self, files: Sequence[Path]) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        encoder, merges, order = files
        self._files = tuple(files)
        vocabulary: dict[str, int] = json.loads(encoder.read_text(encoding="utf-8"))
        lines = merges.read_text(encoding="utf-8").split("\n")
        pairs = [(left, right) for left, right in (line.split() for line in lines if line and line[:2] != "#v")]
        listed = [line.rsplit(" ", 1)[0] for line in order.read_text(encoding="utf-8").split("\n") if line]
        self._ours = {int(name): i for i, name in enumerate(listed, start=len(SPECIAL)) if name.isdecimal()}
        self._theirs = {ours: theirs for theirs, ours in self._ours.items()}
        super().__init__(len(SPECIAL) + len(listed) + 1 + CODES + BINS)
        try:
            self._bpe: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
        except Exception as error:  # the library raises nothing narrower
            raise WeightsError(f"{encoder} and {merges} are no byte-pair encoding: {error}") from error
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._bpe.decoder = decoders.ByteLevel()

    def pieces(self, text: str) -> list[int]:
        """With a space in front, as all words of a sentence have."""
        return [self._ours.get(i, UNK) for i in self._bpe.encode(f" {text}", add_special_tokens=False).ids]

    def text(self, ids: Sequence[int]) -> str:
        """Without codes and coordinates."""
        return str(self._bpe.decode([self._theirs[i] for i in ids if i in self._theirs]))

    def save(self, folder: Path) -> None:
        """Copies of the files."""
        for path in self._files:
            (folder / path.name).write_bytes(path.read_bytes())


def read(files: Sequence[Path]) -> Tokens:
    """The tokenizer in these files, as ``_ofa_files.tokenizer`` finds them."""
    if len(files) == 1:
        return WordTokens(files[0].read_text(encoding="utf-8").split("\n")[:-1])
    return BpeTokens(files)


def words_of(texts: Iterable[str]) -> WordTokens:
    """Covers the texts, and the questions that they become."""
    both = (form for text in set(texts) for form in (text.lower(), normalised(text, len(text))))
    return WordTokens(sorted({word for form in both for word in _WORD.findall(form)}))


def normalised(question: str, max_words: int) -> str:
    """A question as the released code cleans it, cut, with a question mark."""
    text = question.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ")
    text = " ".join(text.split()[:max_words])
    return text if text.endswith("?") else f"{text}?"

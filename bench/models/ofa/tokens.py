"""OFA's tokenizers: GPT-2's byte-pair encoding in fairseq's order of tokens, or the words of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import WeightsError
from bench.models.common.tokens import words_in
from bench.models.common.vqa import VqaTokens
from bench.models.ofa.weights import WORDS

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
BOS, PAD, EOS, UNK = range(len(SPECIAL))
"""fairseq's first four tokens."""
CODES, BINS = 8192, 1000
"""Tokens for pieces of images and for coordinates, behind the words and ``<mask>``."""


class OfaTokens(VqaTokens):
    """A question is ``<s> ... </s>``, an answer ``... </s>``."""

    def __init__(self, tokenizer: Any, size: int, files: Mapping[str, bytes], *, prefix: str, max_words: int) -> None:
        """``prefix``: text in front of every text; ``max_words``: of a question."""
        special = range(len(SPECIAL))
        super().__init__(tokenizer, size, files, question_start=[BOS], answer_start=[], end=EOS, special=special)
        self._prefix = prefix
        self._max_words = max_words

    def question(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Ids of the cleaned question, cut to ``max_words`` and ``max_tokens``; null: uncut."""
        return super().question(clean_question(text, None if max_tokens is None else self._max_words), max_tokens)

    def answer(self, text: str, max_tokens: int | None = None) -> list[int]:
        """Ids of an answer without superfluous blanks."""
        return super().answer(" ".join(text.split()), max_tokens)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        return [i if i < self.size else UNK for i in super().pieces(f"{self._prefix}{text}")]


def read(files: Sequence[Path], max_words: int) -> OfaTokens:
    """The tokenizer of ``words.txt``, or of ``encoder.json``, ``vocab.bpe`` (GPT-2's) and ``dict.txt``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if len(files) == 1:
        return _word_tokens(files[0].read_text(encoding="utf-8").split("\n")[:-1], max_words)
    encoder, merges, order = files
    pieces: dict[str, int] = json.loads(encoder.read_text(encoding="utf-8"))
    lines = merges.read_text(encoding="utf-8").split("\n")
    pairs = [(left, right) for left, right in (line.split() for line in lines if line and line[:2] != "#v")]
    # dict.txt lists GPT-2's ids in fairseq's order.
    listed = [line.rsplit(" ", 1)[0] for line in order.read_text(encoding="utf-8").split("\n") if line]
    ids = {int(name): i for i, name in enumerate(listed, start=len(SPECIAL)) if name.isdecimal()}
    size = len(SPECIAL) + len(listed) + 1 + CODES + BINS
    # A piece that dict.txt does not list gets an id beyond the embedding, which becomes <unk>.
    vocabulary = {piece: ids.get(i, size + i) for piece, i in pieces.items()}
    try:
        tokenizer: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the library raises nothing narrower
        raise WeightsError(f"{encoder} and {merges} are no byte-pair encoding: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    contents = {path.name: path.read_bytes() for path in files}
    return OfaTokens(tokenizer, size, contents, prefix=" ", max_words=max_words)  # all words of a sentence have a space


def build_word_tokens(texts: Iterable[str], max_words: int) -> OfaTokens:
    """A tokenizer of the words of texts, and of the same texts cleaned as questions."""
    both = (form for text in set(texts) for form in (text.lower(), clean_question(text)))
    return _word_tokens(words_in(both, _splitter()), max_words)


def _word_tokens(words: Sequence[str], max_words: int) -> OfaTokens:
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.WordPiece(prefix="\0", cleanup=False)  # joins words by spaces
    content = "".join(f"{word}\n" for word in words).encode()
    return OfaTokens(tokenizer, len(vocabulary), {WORDS: content}, prefix="", max_words=max_words)


def _splitter() -> Any:
    """Words, and question marks apart."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(r"\?|[^\s?]+"), behavior="removed", invert=True)


def clean_question(question: str, max_words: int | None = None) -> str:
    """A question as the released code cleans it: lower case, its first words, a question mark at the end."""
    text = question.lower().lstrip(",.!?*#:;~").replace("-", " ").replace("/", " ")
    text = " ".join(text.split()[:max_words])
    return text if text.endswith("?") else f"{text}?"

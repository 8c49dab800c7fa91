"""The tokenizer of MISS: BERT's lower-case WordPiece with ``[DEC]`` and ``[ENC]`` added, as BLIP's ``init_tokenizer``.

A question is ``[ENC] ... [SEP]``, an answer ``[DEC] ... [SEP]``: the released code replaces BERT's ``[CLS]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import WeightsError

if TYPE_CHECKING:
    import torch

PAD, UNK, SEP, DEC, ENC = "[PAD]", "[UNK]", "[SEP]", "[DEC]", "[ENC]"
SPECIAL = (PAD, UNK, "[CLS]", SEP, "[MASK]", DEC, ENC)


class Tokens:
    """Texts to token ids and back."""

    def __init__(self, words: Sequence[str]) -> None:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        words = [*words, *(token for token in (DEC, ENC) if token not in set(words))]
        if lacking := [token for token in (PAD, UNK, SEP) if token not in set(words)]:
            raise WeightsError(f"the vocabulary has no {', '.join(lacking)}; it must be a BERT WordPiece vocabulary")
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(words)}
        self.pad, self.sep, self.dec, self.enc = (self._ids[token] for token in (PAD, SEP, DEC, ENC))
        self._special = {self._ids[token] for token in SPECIAL if token in self._ids}
        self._pieces: Any = Tokenizer(models.WordPiece(vocab=self._ids, unk_token=UNK, max_input_chars_per_word=100))
        self._pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._counts: dict[str, int] = {}
        """Text -> its tokens, as far as ``longest`` has met it."""
        self._decoder = decoders.WordPiece(cleanup=True)

    def __len__(self) -> int:
        return len(self.words)

    def questions(self, texts: Sequence[str], max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask, both int64 of shape (batch, longest question)."""
        return self._padded(texts, self.enc, max_tokens)

    def answers(self, texts: Sequence[str], max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask, both int64 of shape (batch, longest answer)."""
        return self._padded(texts, self.dec, max_tokens)

    def longest(self, texts: Sequence[str], max_tokens: int) -> int:
        """Tokens of the longest of these questions or answers, special ones included; at most ``max_tokens``."""
        return min(max_tokens, 2 + max(self._lengths(texts)))

    def count_cut(self, texts: Sequence[str], max_tokens: int) -> int:
        """How many of these questions or answers have more than ``max_tokens``, special ones included."""
        return sum(2 + tokens > max_tokens for tokens in self._lengths(texts))

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        new = [text for text in dict.fromkeys(texts) if text not in self._counts]
        for text, pieces in zip(new, self._pieces.encode_batch(new, add_special_tokens=False), strict=True):
            self._counts[text] = len(pieces.ids)
        return [self._counts[text] for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to the first ``[SEP]``, special tokens removed, pieces joined as BERT's tokenizer does."""
        kept: list[str] = []
        for token in ids:
            if token == self.sep:
                break
            if token not in self._special and token < len(self.words):
                kept.append(self.words[token])
        return str(self._decoder.decode(kept)).strip()

    def save(self, folder: Path) -> None:
        """Write ``vocab.txt``, one token a line."""
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")

    def _padded(self, texts: Sequence[str], first: int, max_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        rows = [
            [first, *self._pieces.encode(t, add_special_tokens=False).ids[: max_tokens - 2], self.sep] for t in texts
        ]
        ids = torch.full((len(rows), max(map(len, rows))), self.pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids, mask


def read_words(folder: Path) -> list[str] | None:
    """The vocabulary in ``vocab.txt`` or ``tokenizer.json``, in the order of ids; None if neither is there."""
    if (plain := folder / "vocab.txt").is_file():
        return plain.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if not (fast := folder / "tokenizer.json").is_file():
        return None
    content = json.loads(fast.read_text(encoding="utf-8"))
    if content["model"].get("type", "WordPiece") != "WordPiece":
        raise WeightsError(f"{fast}: a {content['model']['type']} tokenizer; MISS needs BERT's WordPiece")
    ids: dict[str, int] = dict(content["model"]["vocab"])
    ids.update({token["content"]: token["id"] for token in content.get("added_tokens", [])})
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise WeightsError(f"{fast}: token ids are not 0..{len(words) - 1}")
    return words


def words_of(texts: Iterable[str]) -> list[str]:
    """A word-level vocabulary that covers the texts: every word and mark once, sorted, after the special tokens."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer: Any = normalizers.BertNormalizer(lowercase=True)
    splitter: Any = pre_tokenizers.BertPreTokenizer()
    found = {
        word
        for text in set(texts)
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(re.sub(r"\s+", " ", text)))
    }
    return [*SPECIAL, *sorted(found)]

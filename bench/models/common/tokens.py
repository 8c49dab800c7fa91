"""Padded tensors of token ids, and tokenizers of the words of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

IGNORED = -100
"""Label of a token that has no loss."""


def pad(rows: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and their mask (0: padding), both int64 of shape (rows, longest row or 1)."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    if not any(map(len, rows)):  # no model takes a text of no tokens
        return torch.full((len(rows), 1), filler), torch.zeros(len(rows), 1, dtype=torch.long)
    side = "left" if left else "right"
    ids = pad_sequence(tensors, batch_first=True, padding_value=filler, padding_side=side)
    ones = [torch.ones_like(tensor) for tensor in tensors]
    return ids, pad_sequence(ones, batch_first=True, padding_side=side)


def meta_ids(batch_size: int, lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Name -> int64 tensor (batch, length) on meta."""
    return {n: torch.empty(batch_size, size, dtype=torch.long, device="meta") for n, size in lengths.items()}


def words_in(texts: Iterable[str], splitter: PreTokenizer) -> list[str]:
    """The distinct words of the texts, sorted."""
    return sorted({word for text in set(texts) for word, _ in splitter.pre_tokenize_str(text)})


def word_tokenizer(words: Sequence[str], splitter: PreTokenizer, special: Mapping[str, str]) -> Any:
    """A ``PreTrainedTokenizerFast`` with one token a word: the special tokens, then ``words``, in this order.

    ``special``: role -> token (``pad_token``, ``unk_token``, ``bos_token``, ``eos_token``). A text is put between the
    last two, a pair of texts has the last between them.
    """
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*special.values(), *words])}
    begin, end = special["bos_token"], special["eos_token"]
    tokenizer: Any = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = splitter
    # A prefix that no word begins with: words are joined by spaces, without spaces in front of marks.
    tokenizer.decoder = decoders.WordPiece(prefix="\0", cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, vocabulary[token]) for token in (begin, end)],
    )
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=tokenizer, **special)

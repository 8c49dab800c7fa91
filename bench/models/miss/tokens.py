"""MISS's tokenizer: BERT's lower-case WordPiece with ``[DEC]`` and ``[ENC]`` added, as BLIP's ``init_tokenizer``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import WeightsError
from bench.models.common.files import cached_folder
from bench.models.common.vqa import VqaTokens
from bench.models.miss import weights as files
from bench.models.miss.settings import Weights

PAD, UNK, SEP, DEC, ENC = "[PAD]", "[UNK]", "[SEP]", "[DEC]", "[ENC]"
SPECIAL = (PAD, UNK, "[CLS]", SEP, "[MASK]", DEC, ENC)


class MissTokens(VqaTokens):
    """A question is ``[ENC] ... [SEP]``, an answer ``[DEC] ... [SEP]``: the released code replaces BERT's ``[CLS]``."""

    def __init__(self, words: Sequence[str]) -> None:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

        words = [*words, *(token for token in (DEC, ENC) if token not in set(words))]
        if lacking := [token for token in (PAD, UNK, SEP) if token not in set(words)]:
            raise WeightsError(f"the vocabulary has no {', '.join(lacking)}; it must be a BERT WordPiece vocabulary")
        self.words = tuple(words)
        ids = {word: i for i, word in enumerate(words)}
        self.pad, self.sep, self.dec, self.enc = (ids[token] for token in (PAD, SEP, DEC, ENC))
        tokenizer: Any = Tokenizer(models.WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=100))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(cleanup=True)
        super().__init__(
            tokenizer,
            len(words),
            {"vocab.txt": "".join(f"{word}\n" for word in words).encode()},
            question_start=[self.enc],
            answer_start=[self.dec],
            end=self.sep,
            special=[ids[token] for token in SPECIAL if token in ids],
        )


def read_words(folder: Path) -> list[str] | None:
    """The vocabulary of ``vocab.txt`` or ``tokenizer.json``, in the order of ids; null if the folder has neither."""
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


def build_vocabulary(texts: Iterable[str]) -> list[str]:
    """Special tokens, then words and marks of the texts, sorted."""
    from tokenizers import normalizers, pre_tokenizers

    from bench.models.common.tokens import words_in

    normalizer: Any = normalizers.BertNormalizer(lowercase=True)
    spaced = (normalizer.normalize_str(re.sub(r"\s+", " ", text)) for text in set(texts))
    return [*SPECIAL, *words_in(spaced, pre_tokenizers.BertPreTokenizer())]


def words_of_weights(weights: Weights) -> list[str]:
    """The weights' vocabulary. Raises WeightsError if they have none."""
    if words := read_words(files.vocabulary_folder(weights)):
        return words
    raise WeightsError("the weights' folder has no vocab.txt or tokenizer.json: put the tokenizer there")


def words_without_weights(weights: Weights, rows: int) -> list[str] | None:
    """The weights' vocabulary if it is on this machine, else BERT's if the embedding has exactly ``rows`` for it.

    Downloads nothing; null without either.
    """
    try:
        folder = (
            cached_folder(weights.id, weights.revision) if weights.kind == "hub" else files.vocabulary_folder(weights)
        )
        if folder is not None and (words := read_words(folder)):
            return words
    except WeightsError:
        pass
    try:
        bert = read_words(files.packaged(*files.MINILM).parent)
    except WeightsError:
        return None
    return bert if bert is not None and len(bert) + 2 == rows else None

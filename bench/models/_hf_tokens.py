"""Tokenizers of transformers models: those of the weights, or one of a data set's own words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import SpecError, WeightsError
from bench.models import _hf_source

if TYPE_CHECKING:
    from bench.models.hf import Settings

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
"""Of a tokenizer of words: padding, unknown word, begin and end of a text."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
_WORD = r"\n|[?!.,;:]+(?=\s|$)|\S+?(?=[?!.,;:]*(?:\s|$))"
"""A line's end, marks at the end of a word, and the word before them, which may have marks inside: ``3.5``, ``(a)``."""
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
"""What the library calls a table of the positions of a text."""
_REST = 2
"""Positions that some models keep in front of a text's first: RoBERTa's and OPT's tables begin behind two."""


class Tokens:
    """Texts to token ids and back."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.pad_token_id is None:
            spare = tokenizer.eos_token or tokenizer.unk_token
            if spare is None:
                raise SpecError(
                    "the tokenizer has no token for padding, nor an end of text to take for it; give another"
                )
            tokenizer.pad_token = spare
        self.pad: int = tokenizer.pad_token_id
        self.end: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        self._known: dict[tuple[str, bool], list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokenizer)

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Of one text, with the special tokens that the tokenizer puts around it, or without."""
        key = (text, special)
        if key not in self._known:
            self._known[key] = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        return self._known[key]

    def prompt(self, text: str) -> list[int]:
        """As ``ids``, to be continued: without the token that ends a text."""
        ids = self.ids(text)
        return ids[:-1] if ids and ids[-1] in (self.end, self.tokenizer.sep_token_id) else ids

    def answer(self, text: str, longest: int) -> list[int]:
        """An answer and the end of a text, together at most ``longest`` tokens."""
        end = [] if self.end is None else [self.end]
        return [*self.ids(text, special=False)[: longest - len(end)], *end]

    def cut(self, text: str, longest: int) -> str:
        """The text without what is behind its first ``longest`` tokens."""
        ids = self.ids(text, special=False)
        if len(ids) <= longest:
            return text
        kept = str(self.tokenizer.decode(ids[:longest], skip_special_tokens=True))
        while len(self.ids(kept, special=False)) > longest:  # half a character of bytes is written as a whole one
            kept = kept[:-1]
        return kept

    def texts(self, rows: torch.Tensor) -> list[str]:
        """Special tokens removed."""
        return [text.strip() for text in self.tokenizer.batch_decode(rows.tolist(), skip_special_tokens=True)]


def padded(rows: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and the mask of what is not padding, both int64 of shape (batch, longest)."""
    ids = torch.full((len(rows), max(1, *map(len, rows))), filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(ids.shape[1] - len(row), None) if left else slice(len(row))
        ids[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = 1
    return ids, mask


def load(settings: Settings, texts: Sequence[str], *, meta: bool) -> tuple[Tokens, bool]:
    """The tokenizer, and whether it is the run's own: on meta nothing is downloaded, and it need not be here.

    Raises WeightsError if the weights have none.
    """
    folder = folder_of(settings, meta=meta)
    if folder is not None and any(True for pattern in _FILES for _ in folder.glob(pattern)):
        try:
            return Tokens(_read(folder)), True
        except WeightsError:
            if not meta:
                raise
    scratch = settings.config is not None or settings.random_weights
    if settings.tokenizer is not None or not scratch:
        if meta:
            return Tokens(words_of(texts)), False
        raise WeightsError(
            f"no tokenizer in {folder}: expected tokenizer.json, as save_pretrained writes it; put it there, "
            "or set model.tokenizer to the id or folder of one"
        )
    return Tokens(words_of(texts)), bool(texts)


def folder_of(settings: Settings, *, meta: bool) -> Path | None:
    """Where the tokenizer, or the processor that holds it, lies; None where there is none. Raises WeightsError."""
    if settings.tokenizer is None:
        return _hf_source.folder_here(settings) if meta else _hf_source.folder(settings)
    if Path(settings.tokenizer).is_dir():
        return Path(settings.tokenizer)
    if settings.tokenizer.count("/") > 1 or settings.tokenizer.startswith((".", "~")):
        raise WeightsError(
            f"no folder {settings.tokenizer}: set model.tokenizer to the folder or Hub id of a tokenizer"
        )
    try:
        return _hf_source.snapshot(settings.tokenizer, None, weights=False)
    except WeightsError:
        if meta:
            return None
        raise


def _read(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of several libraries
        raise WeightsError(f"the tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}") from error


def words_of(texts: Iterable[str]) -> Any:
    """A tokenizer of every word of the texts, in the order of the alphabet, behind the special tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    splitter: Any = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    found = {word for text in set(texts) for word, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, "\n", *sorted(found - {*SPECIAL, "\n"})])}
    pad, unknown, begin, end = SPECIAL
    tokenizer: Any = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix="\0", cleanup=True)  # no word is a piece
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])]
    )
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=tokenizer, pad_token=pad, unk_token=unknown, bos_token=begin, eos_token=end)


def settle(config: Any, tokens: Tokens, *, fresh: bool) -> None:
    """Let configuration and tokenizer agree on special tokens: of ``fresh`` weights all of them are the tokenizer's, of
    others only the padding that the configuration lacks. Raises SpecError if the tokenizer does not fit.
    """
    text = config.get_text_config()
    if text.vocab_size < len(tokens):
        raise SpecError(
            f"the tokenizer has {len(tokens)} tokens, the model only vocab_size {text.vocab_size}; "
            "set model.tokenizer to the weights' own, or leave vocab_size out of model.config"
        )
    roles = {"pad": tokens.pad, "eos": tokens.end, "bos": tokens.tokenizer.bos_token_id}
    for each in {id(own): own for own in (config, text)}.values():
        first = getattr(each, "decoder_start_token_id", None)
        old = {role: getattr(each, f"{role}_token_id", None) for role in roles}
        for role, token in roles.items():
            if token is not None and (fresh or (role == "pad" and old[role] is None)):
                setattr(each, f"{role}_token_id", token)
        if each.is_encoder_decoder and (fresh or first is None):  # T5 starts with padding, BART with an end
            same = next((role for role, token in old.items() if token is not None and token == first), "pad")
            each.decoder_start_token_id = roles[same]


def positions(model: torch.nn.Module) -> int | None:
    """Tokens that the model's table of positions has room for; None where it has none (T5, Llama)."""
    rooms = [
        own.num_embeddings - int(getattr(own, "offset", 0 if own.padding_idx is None else own.padding_idx + 1))
        for name, own in model.named_modules()
        if isinstance(own, torch.nn.Embedding) and name.rpartition(".")[2] in _POSITIONS
    ]
    return min(rooms, default=None)


def longest_question(config: Any, others: int) -> int:
    """Tokens that the model's positions leave for a question beside ``others``, where it has a table of them."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return 10**6 if not isinstance(positions, int) or positions < 1 else max(1, positions - _REST - others)

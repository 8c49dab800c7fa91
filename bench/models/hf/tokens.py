"""Tokenizers of transformers models: those of the weights, or one of a data set's own words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import SpecError, WeightsError
from bench.models.common.tokens import word_tokenizer, words_in
from bench.models.hf import files

if TYPE_CHECKING:
    from bench.models.hf import Settings

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""Special tokens of a tokenizer of words, in the order of their ids."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
_WORD = r"\n|[?!.,;:]+(?=\s|$)|\S+?(?=[?!.,;:]*(?:\s|$))"
"""A line's end, marks at the end of a word, and the word before them, which may have marks inside: ``3.5``, ``(a)``."""
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
"""What the library calls a table of the positions of a text."""
_REST = 2
"""Positions that some models keep in front of a text's first: RoBERTa's and OPT's tables begin behind two."""


_LETTER = "a"
"""A text, for counting what stands around one, and behind one: some tokenizers begin with a space."""

_USER = "what-a-user-says"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What a prompt puts around a text."""

    pieces: tuple[str, ...] = ("", "")
    """Between two of them stands the text."""
    special: bool = True
    """Whether the tokenizer puts its special tokens around the whole."""
    ends: bool = True
    """Whether a token that ends a text stays at the end; not where it is to be continued."""


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

    def framed(self, text: str, frame: Frame, longest: int) -> list[int]:
        """Ids of a text, cut behind its first ``longest``, with all that is put around it."""
        whole = self.ids(text.join(frame.pieces), special=frame.special)
        if len(whole) > longest and self.is_cut(text, longest):
            whole = self._cut(whole, text, frame, longest)
        ended = whole and whole[-1] in (self.end, self.tokenizer.sep_token_id)
        return whole[:-1] if ended and not frame.ends else whole

    def _cut(self, whole: list[int], text: str, frame: Frame, longest: int) -> list[int]:
        plain = self.ids(text.join(frame.pieces), special=False)
        kept: list[int] = []
        for piece in frame.pieces[:-1]:
            inner = self._behind(piece + text) if kept else self.ids(piece + text, special=False)
            before = self._behind(piece) if kept else self.ids(piece, special=False)
            kept += inner[: len(before) + longest]
        kept += self._behind(frame.pieces[-1])
        around = len(whole) - len(plain)
        front = next((i for i in range(around + 1) if whole[i : i + len(plain)] == plain), min(1, around))
        return [*whole[:front], *kept, *whole[len(whole) - around + front :]]

    def _behind(self, text: str) -> list[int]:
        """Ids of a text that stands behind another."""
        if not text:
            return []
        return self.ids(_LETTER + text, special=False)[len(self.ids(_LETTER, special=False)) :]

    def around(self, frame: Frame) -> int:
        """Tokens that are put around a text."""
        return len(self.framed(_LETTER, frame, 1)) - len(self.ids(_LETTER, special=False))

    def chat_pieces(self) -> tuple[str, ...]:
        """What the chat template puts around a user's words. Raises SpecError if it leaves them out."""
        said = [{"role": "user", "content": _USER}]
        written = str(self.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False))
        if _USER not in written:
            raise SpecError("the tokenizer's chat template leaves out what a user says; set model.prompt")
        return tuple(written.split(_USER))

    def pair(self, first: str, second: str, longest: int) -> list[int]:
        """Ids of two texts with the special tokens around and between them; together at most ``longest`` of their own,
        the longer one cut first."""
        return self._both(first, second, longest)["input_ids"]

    def segments(self, text: str, second: str | None, ids: Sequence[int], longest: int) -> list[int]:
        """Which text each of the ids belongs to, as the tokenizer says it."""
        if second is not None:
            return self._both(text, second, longest)["token_type_ids"]
        whole = list(self.tokenizer(text, return_token_type_ids=True)["token_type_ids"])
        return [*whole[: len(ids) - 1], whole[-1]]

    def _both(self, first: str, second: str, longest: int) -> dict[str, list[int]]:
        self.tokenizer.truncation_side = "right"
        most = longest + self.tokenizer.num_special_tokens_to_add(pair=True)
        options = {"truncation": "longest_first", "max_length": most, "return_token_type_ids": True}
        return {name: list(row) for name, row in self.tokenizer(first, second, **options).items()}

    def is_cut(self, text: str, longest: int, second: str | None = None) -> bool:
        """Whether a text, or a pair, has more than ``longest`` tokens of its own."""
        other = 0 if second is None else len(self.ids(second, special=False))
        return len(self.ids(text, special=False)) + other > longest

    def answer(self, text: str, longest: int) -> list[int]:
        """An answer and the end of a text, together at most ``longest`` tokens."""
        end = [] if self.end is None else [self.end]
        return [*self.ids(text, special=False)[: longest - len(end)], *end]

    def cuts_answer(self, text: str, longest: int) -> bool:
        """Whether ``answer`` leaves some of it out."""
        return self.is_cut(text, longest - (self.end is not None))

    def cut(self, text: str, longest: int) -> str:
        """The longest beginning of the text that has at most ``longest`` tokens, for a processor that takes no ids."""
        if not self.is_cut(text, longest):
            return text

        def tokens(end: int) -> int:
            return len(self.tokenizer(text[:end], add_special_tokens=False)["input_ids"])

        end = bisect_right(range(len(text) + 1), longest, key=tokens) - 1
        while tokens(end) > longest:  # a beginning of a word may have more tokens than the word
            end -= 1
        return text[:end].rstrip()

    def texts(self, rows: torch.Tensor) -> list[str]:
        """Special tokens removed."""
        return [text.strip() for text in self.tokenizer.batch_decode(rows.tolist(), skip_special_tokens=True)]


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
        return files.folder_here(settings) if meta else files.folder(settings)
    try:
        return files.tokenizer_folder(settings.tokenizer)
    except WeightsError:
        if meta and not files.names_a_folder(settings.tokenizer):
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
    from tokenizers import Regex, pre_tokenizers

    splitter: Any = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    words = ["\n", *(word for word in words_in(texts, splitter) if word != "\n" and word not in SPECIAL.values())]
    return word_tokenizer(words, splitter, SPECIAL)


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

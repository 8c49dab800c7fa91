"""Tokenizers of transformers models: the weights', or one of a data set's words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.errors import SpecError, WeightsError
from bench.models.common.tokens import word_tokenizer, words_in
from bench.models.hf import files
from bench.models.hf.settings import Settings

_SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")
# A new line, marks at the end of a word, and the word before them, which may have marks inside: ``3.5``, ``(a)``.
_WORD = r"\n|[?!.,;:]+(?=\s|$)|\S+?(?=[?!.,;:]*(?:\s|$))"
# Names of the library's embeddings of text positions.
_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
# Rows in front of a text's first position in some tables, such as RoBERTa's and OPT's.
_RESERVED_POSITIONS = 2
# A text that others stand behind: some tokenizers put a space in front of the first word.
_LETTER = "a"
_USER = "what-a-user-says"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """Prompt around a text."""

    pieces: tuple[str, ...] = ("", "")
    """The text goes between each two of them."""
    special: bool = True
    """Whether the tokenizer adds its special tokens."""
    ends: bool = True
    """Whether a token for the end of a text stays; false for a prompt to be continued."""


class HfTokens:
    """Texts to token ids and back."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.pad_token_id is None:
            filler = tokenizer.eos_token or tokenizer.unk_token
            if filler is None:
                raise SpecError("the tokenizer has no token for padding, and no end of text to use for it; set another")
            tokenizer.pad_token = filler
        self.pad: int = tokenizer.pad_token_id
        self.end: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        self._encoded: dict[tuple[str, bool], list[int]] = {}

    def __len__(self) -> int:
        return len(self.tokenizer)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, with or without special tokens around it."""
        key = (text, special)
        if key not in self._encoded:
            self._encoded[key] = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        return self._encoded[key]

    def encode_prompt(self, text: str, template: PromptTemplate, longest: int) -> list[int]:
        """Ids of a template around the first ``longest`` tokens of a text."""
        whole = self.encode(text.join(template.pieces), special=template.special)
        if len(whole) > longest and self.is_longer(text, longest):
            whole = self._cut_prompt(whole, text, template, longest)
        ended = whole and whole[-1] in (self.end, self.tokenizer.sep_token_id)
        return whole[:-1] if ended and not template.ends else whole

    def _cut_prompt(self, whole: list[int], text: str, template: PromptTemplate, longest: int) -> list[int]:
        plain = self.encode(text.join(template.pieces), special=False)
        kept: list[int] = []
        for piece in template.pieces[:-1]:
            encode = self._encode_behind if kept else self._encode_plain
            kept += encode(piece + text)[: len(encode(piece)) + longest]
        kept += self._encode_behind(template.pieces[-1])
        around = len(whole) - len(plain)
        front = next((i for i in range(around + 1) if whole[i : i + len(plain)] == plain), min(1, around))
        return [*whole[:front], *kept, *whole[len(whole) - around + front :]]

    def _encode_plain(self, text: str) -> list[int]:
        return self.encode(text, special=False)

    def _encode_behind(self, text: str) -> list[int]:
        """Ids of a text behind another."""
        return self._encode_plain(_LETTER + text)[len(self._encode_plain(_LETTER)) :] if text else []

    def template_length(self, template: PromptTemplate) -> int:
        """Number of tokens around a text."""
        return len(self.encode_prompt(_LETTER, template, 1)) - len(self._encode_plain(_LETTER))

    def chat_pieces(self) -> tuple[str, ...]:
        """Pieces of the chat template around a user's message. Raises SpecError if it leaves the message out."""
        message = [{"role": "user", "content": _USER}]
        text = str(self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        if _USER not in text:
            raise SpecError("the tokenizer's chat template leaves out what a user says; set model.prompt")
        return tuple(text.split(_USER))

    def encode_pair(self, first: str, second: str, longest: int) -> tuple[list[int], list[int]]:
        """Ids of two texts with special tokens, and the token type (0, 1) of each.

        Without special tokens both have at most ``longest`` tokens; the longer text is cut first."""
        self.tokenizer.truncation_side = "right"
        most = longest + self.tokenizer.num_special_tokens_to_add(pair=True)
        options = {"truncation": "longest_first", "max_length": most, "return_token_type_ids": True}
        row = self.tokenizer(first, second, **options)
        return list(row["input_ids"]), list(row["token_type_ids"])

    def token_types(self, text: str, length: int) -> list[int]:
        """Token types of a text, cut to ``length`` tokens with its end."""
        whole = list(self.tokenizer(text, return_token_type_ids=True)["token_type_ids"])
        return [*whole[: length - 1], whole[-1]]

    def is_longer(self, text: str, longest: int, second: str = "") -> bool:
        """Whether a text, or a pair, has more than ``longest`` tokens without special tokens."""
        other = len(self._encode_plain(second)) if second else 0
        return len(self._encode_plain(text)) + other > longest

    def encode_answer(self, text: str, longest: int) -> list[int]:
        """Ids of an answer with its end, at most ``longest``."""
        end = [] if self.end is None else [self.end]
        return [*self._encode_plain(text)[: longest - len(end)], *end]

    def cut(self, text: str, longest: int) -> str:
        """Longest beginning of a text with at most ``longest`` tokens, for a processor that takes no ids."""
        if not self.is_longer(text, longest):
            return text

        def length(end: int) -> int:
            return len(self.tokenizer(text[:end], add_special_tokens=False)["input_ids"])

        end = bisect_right(range(len(text) + 1), longest, key=length) - 1
        while length(end) > longest:  # a part of a word may have more tokens than the word
            end -= 1
        return text[:end].rstrip()

    def decode(self, rows: torch.Tensor) -> list[str]:
        """Texts of rows of ids, special tokens removed."""
        return [text.strip() for text in self.tokenizer.batch_decode(rows.tolist(), skip_special_tokens=True)]


def load(settings: Settings, texts: Sequence[str], *, meta: bool) -> tuple[HfTokens, bool]:
    """The tokenizer, and whether a run uses the same: on meta it may be missing, and nothing is downloaded.

    Raises WeightsError if the weights have none.
    """
    from transformers import AutoTokenizer

    folder = folder_of(settings, meta=meta)
    if folder is not None and any(True for pattern in _FILES for _ in folder.glob(pattern)):
        try:
            return HfTokens(AutoTokenizer.from_pretrained(folder, local_files_only=True)), True
        except SpecError:
            raise
        except Exception as error:  # the tokenizer libraries raise their own kinds
            if not meta:
                reason = str(error).splitlines()[0]
                raise WeightsError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
    words = HfTokens(build_word_tokenizer(texts))
    if settings.is_untrained and settings.tokenizer is None:
        return words, bool(texts)
    if meta:
        return words, False
    raise WeightsError(
        f"no tokenizer in {folder}: expected tokenizer.json, as save_pretrained writes it; put it there, "
        "or set model.tokenizer to the id or folder of one"
    )


def folder_of(settings: Settings, *, meta: bool) -> Path | None:
    """Folder of the tokenizer, or of the processor with it; null without one. Raises WeightsError."""
    if settings.tokenizer is None:
        return files.local_folder(settings) if meta else files.model_folder(settings)
    try:
        return files.tokenizer_folder(settings.tokenizer)
    except WeightsError:
        if meta and not files.is_path(settings.tokenizer):
            return None
        raise


def build_word_tokenizer(texts: Iterable[str]) -> Any:
    """A tokenizer of special tokens, new line and the texts' words, sorted."""
    from tokenizers import Regex, pre_tokenizers

    splitter: Any = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    words = [word for word in words_in(texts, splitter) if word not in ("\n", *_SPECIAL.values())]
    return word_tokenizer(["\n", *words], splitter, _SPECIAL)


def align_special_tokens(config: Any, tokens: HfTokens, *, untrained: bool) -> None:
    """Set special tokens of the configuration to the tokenizer's: all for ``untrained`` weights, else missing padding.

    Raises SpecError if the tokenizer has more tokens than the model.
    """
    text = config.get_text_config()
    if text.vocab_size < len(tokens):
        raise SpecError(
            f"the tokenizer has {len(tokens)} tokens, the model only vocab_size {text.vocab_size}; "
            "set model.tokenizer to the weights' own, or leave vocab_size out of model.config"
        )
    roles = {"pad": tokens.pad, "eos": tokens.end, "bos": tokens.tokenizer.bos_token_id}
    for each in (config, text) if text is not config else (config,):
        start = getattr(each, "decoder_start_token_id", None)
        old = {role: getattr(each, f"{role}_token_id", None) for role in roles}
        for role, token in roles.items():
            if token is not None and (untrained or (role == "pad" and old[role] is None)):
                setattr(each, f"{role}_token_id", token)
        if each.is_encoder_decoder and (untrained or start is None):  # T5 starts with padding, BART with an end
            same = next((role for role, token in old.items() if token is not None and token == start), "pad")
            each.decoder_start_token_id = roles[same]


def max_positions(model: torch.nn.Module) -> int | None:
    """Tokens in the model's table of positions; null without one (T5, Llama)."""
    tables = [
        table.num_embeddings - int(getattr(table, "offset", 0 if table.padding_idx is None else table.padding_idx + 1))
        for name, table in model.named_modules()
        if isinstance(table, torch.nn.Embedding) and name.rpartition(".")[2] in _POSITION_TABLES
    ]
    return min(tables, default=None)


def max_question_length(config: Any, others: int) -> int:
    """Tokens that the configuration's positions leave for a question beside ``others``; without positions 10^6."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return 10**6
    return max(1, positions - _RESERVED_POSITIONS - others)

"""Transformers models that read a text: they choose a label, go on writing, or write anew."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import SpecError
from bench.models.common.tokens import pad
from bench.models.hf import tokens as _hf_tokens
from bench.models.hf.model import Batch, HfModel
from bench.models.hf.tokens import Frame, Tokens
from bench.plugins.contracts import CutTexts, GenerateOptions, InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models.hf.builder import Built

IGNORED = -100
"""Label of a token that no loss is taken of."""
_LONGEST = 128
"""Tokens of a question where nothing sets fewer."""


class TextModel(HfModel):
    """What they share: prompts and lengths."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        assert built.tokens is not None
        self.tokens: Tokens = built.tokens
        self._longest_question = self.settings.question_max_tokens or min(
            _LONGEST, _hf_tokens.longest_question(self.base.config, self._around_question() + self._answer_room())
        )
        self._check_room()

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """What ``collate`` pads these to."""
        return InputLengths(
            question_tokens=max(len(self.question(text)) for text in questions),
            answer_tokens=max(len(self._target(text)) for text in answers) if self._writes else 0,
        )

    def max_lengths(self) -> InputLengths:
        """``question_max_tokens`` and what is put around a question, and ``answer_max_tokens``."""
        return InputLengths(
            question_tokens=self._longest_question + self._around_question(),
            answer_tokens=self.settings.answer_max_tokens if self._writes else 0,
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str]) -> CutTexts:
        """How many are longer than ``question_max_tokens`` and ``answer_max_tokens``."""
        longest = self.settings.answer_max_tokens
        return CutTexts(
            questions=sum(self.tokens.is_cut(text, self._longest_question) for text in questions),
            answers=sum(self.tokens.cuts_answer(text, longest) for text in answers) if self._writes else 0,
        )

    def save(self, folder: Path) -> None:
        """With the tokenizer."""
        super().save(folder)
        self.tokens.tokenizer.save_pretrained(folder)

    def question(self, text: str) -> list[int]:
        """Ids of a question, cut, with all that is put around it."""
        return self.tokens.framed(text, self._frame, self._longest_question)

    @cached_property
    def _frame(self) -> Frame:
        """What a prompt puts around a question."""
        return Frame(pieces=tuple((self.settings.prompt or "{question}").split("{question}")))

    def _around_question(self) -> int:
        """Tokens that are put around a question."""
        return self.tokens.around(self._frame)

    @property
    def _writes(self) -> bool:
        return self.built.task.output == "text"

    def _answer_room(self) -> int:
        """Positions that an answer takes beside the question."""
        return 0

    def _check_room(self) -> None:
        """Raise SpecError if the longest question has no room: the first such text would end a run."""
        room = _hf_tokens.positions(self.base)
        others = self._around_question() + self._answer_room()
        if self.settings.question_max_tokens and room is not None and self._longest_question + others > room:
            raise SpecError(
                f"model.question_max_tokens is {self._longest_question}, but {self.base.config.model_type!r} has "
                f"{room} positions, of which prompt and answer take {others}: set it to at most "
                f"{max(1, room - others)}, or remove it"
            )

    def _target(self, text: str) -> list[int]:
        return self.tokens.answer(text, self.settings.answer_max_tokens)

    def _inputs(self, questions: Sequence[str], *, left: bool) -> Batch:
        ids, mask = pad([self.question(text) for text in questions], self.tokens.pad, left=left)
        return {"input_ids": ids, "attention_mask": mask}


class TextLabels(TextModel):
    """Chooses a label for a text: ``AutoModelForSequenceClassification``."""

    reads_pairs = True

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        self._segmented = _has_segments(self.base, self.tokens.tokenizer)
        self._rows: dict[tuple[str, str | None], tuple[list[int], list[int]]] = {}
        """Text, or pair -> ids and segments."""

    def collate(
        self,
        images: Sequence[Image],  # noqa: ARG002
        questions: Sequence[str],
        answers: Sequence[str],  # noqa: ARG002
        pairs: Sequence[str] = (),
    ) -> Batch:
        """``input_ids``, ``attention_mask`` and, where the model tells texts apart, ``token_type_ids`` (batch, longest)
        int64; padded in front for a model that only decodes, which reads the label off the last token."""
        rows = self._read_rows(questions, pairs)
        left = self.built.decoder_only
        ids, mask = pad([ids for ids, _ in rows], self.tokens.pad, left=left)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self._segmented:
            filler = self.tokens.tokenizer.pad_token_type_id
            batch["token_type_ids"], _ = pad([segments for _, segments in rows], filler, left=left)
        return batch

    def lengths(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> InputLengths:  # noqa: ARG002
        """What ``collate`` pads these to."""
        return InputLengths(
            question_tokens=max(len(ids) for ids, _ in self._read_rows(questions, pairs)), answer_tokens=0
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> CutTexts:
        """How many texts, or pairs, are longer than ``question_max_tokens``."""
        if not pairs:
            return super().cut_texts(questions, answers)
        both = zip(questions, pairs, strict=True)
        return CutTexts(
            questions=sum(self.tokens.is_cut(text, self._longest_question, second) for text, second in both), answers=0
        )

    def logits(self, batch: Batch) -> torch.Tensor:
        """Shape (batch, labels), in the order of the task's labels."""
        return ordered(self, self.model(**batch).logits)

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:  # noqa: ARG002
        """As ``collate``, on meta."""
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if self._segmented else ()))
        return on_meta(batch_size, dict.fromkeys(names, lengths.question_tokens))

    def _read_rows(self, questions: Sequence[str], pairs: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        seconds: Sequence[str | None] = pairs or [None] * len(questions)
        return [self._row(*row) for row in zip(questions, seconds, strict=True)]

    def _row(self, text: str, second: str | None) -> tuple[list[int], list[int]]:
        """Ids and, where the model tells texts apart, their segments."""
        if (text, second) not in self._rows:
            longest = self._longest_question
            if second is not None:
                self._check_separator()
            ids = self.question(text) if second is None else self.tokens.pair(text, second, longest)
            segments = self.tokens.segments(text, second, ids, longest) if self._segmented else []
            self._rows[text, second] = ids, segments
        return self._rows[text, second]

    def _check_separator(self) -> None:
        """Raise SpecError if the two texts of a pair would run into one."""
        add = self.tokens.tokenizer.num_special_tokens_to_add
        if add(pair=True) <= add(pair=False):
            raise SpecError(
                "the tokenizer puts nothing between two texts: write both into one, with what tells them apart, e.g. "
                '`text: "{premise} | {hypothesis}"`, and remove data.columns.text_pair'
            )
        if self.settings.prompt is not None:
            raise SpecError("model.prompt is of one text: remove it, or data.columns.text_pair")


class Writer(TextModel):
    """Writes an answer; the loss is the library's, the mean over all tokens of the answers."""

    pads_prompts = True
    """False where padding in front of a prompt would change its answer."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        plan_generation(self.base, self.tokens)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar mean over the tokens of the answers."""
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset(self.base.generation_config.eos_token_id or ())

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """As ``bench.training.audit`` asks for them."""
        scores: torch.Tensor = self.model(**self._teaching(batch, answers)).logits
        last = scores.shape[1] - self._unasked
        return scores[:, last - answers.shape[1] : last]

    _unasked = 1
    """Scores at the end that are of no token of an answer: of what follows it."""

    def _teaching(self, batch: Batch, answers: torch.Tensor) -> Batch:
        """Inputs of a prediction, with answers (rows, tokens) as in training, none of them padded."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Beam search; no more tokens than the model's table of positions has room for."""
        most = options.max_new_tokens
        if (room := _hf_tokens.positions(self.base)) is not None:
            most = min(most, room - self._in_front(batch["input_ids"].shape[1]))
        ids = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            num_beams=options.num_beams,
            max_new_tokens=most,
        )
        return self.tokens.texts(self._written(ids, batch["input_ids"].shape[1]))

    def _written(self, ids: torch.Tensor, read: int) -> torch.Tensor:
        """Without what was given to it."""
        raise NotImplementedError

    def _in_front(self, read: int) -> int:
        """Tokens that stand in front of an answer to a prompt of ``read``."""
        raise NotImplementedError


class Continuation(Writer):
    """Goes on writing behind the prompt: ``AutoModelForCausalLM``."""

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Beam search, over all prompts at once or over those of one length."""
        if self.pads_prompts:
            return super().generate(batch, options)
        lengths = batch["attention_mask"].sum(dim=1)
        answers = [""] * len(lengths)
        for length in sorted({*lengths.tolist()}):
            rows = (lengths == length).nonzero()[:, 0]
            texts = super().generate({name: tensor[rows, -length:] for name, tensor in batch.items()}, options)
            for row, text in zip(rows.tolist(), texts, strict=True):
                answers[row] = text
        return answers

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:  # noqa: ARG002
        """``input_ids``, ``attention_mask`` (batch, longest) int64: prompts, padded in front; with answers, prompts and
        answers, padded behind, and ``labels``, which leave the prompts out."""
        if not answers:
            return self._inputs(questions, left=True)
        prompts, targets = [self.question(text) for text in questions], [self._target(text) for text in answers]
        pairs = list(zip(prompts, targets, strict=True))
        ids, mask = pad([[*prompt, *target] for prompt, target in pairs], self.tokens.pad)
        labels, _ = pad([[IGNORED] * len(prompt) + target for prompt, target in pairs], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta, where the longest question has the longest answer."""
        both = lengths.question_tokens + (lengths.answer_tokens if with_answers else 0)
        names = ("input_ids", "attention_mask", *(("labels",) if with_answers else ()))
        return on_meta(batch_size, dict.fromkeys(names, both))

    def _answer_room(self) -> int:
        return self.settings.answer_max_tokens

    @cached_property
    def _frame(self) -> Frame:
        if self.settings.prompt is None and getattr(self.tokens.tokenizer, "chat_template", None):
            return Frame(pieces=self.tokens.chat_pieces(), special=False)
        pieces = (self.settings.prompt or "{question}\n").split("{question}")
        return Frame(pieces=tuple(pieces), ends=False)

    def _teaching(self, batch: Batch, answers: torch.Tensor) -> Batch:
        added = {"input_ids": answers, "attention_mask": torch.ones_like(answers)}
        found = {name: torch.cat([batch[name], behind], dim=1) for name, behind in added.items()}
        return found | {"labels": torch.cat([torch.full_like(batch["input_ids"], IGNORED), answers], dim=1)}

    def _written(self, ids: torch.Tensor, read: int) -> torch.Tensor:
        return ids[:, read:]

    def _in_front(self, read: int) -> int:
        return read


class Rewriting(Writer):
    """Reads the prompt and writes anew: ``AutoModelForSeq2SeqLM``."""

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:  # noqa: ARG002
        """``input_ids``, ``attention_mask`` (batch, longest question) int64; with answers, ``labels`` and
        ``decoder_input_ids`` (batch, longest answer), the labels behind the token that generation starts with."""
        batch = self._inputs(questions, left=False)
        if answers:
            batch |= self._taught(pad([self._target(text) for text in answers], IGNORED)[0])
        return batch

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta."""
        sizes = dict.fromkeys(("input_ids", "attention_mask"), lengths.question_tokens)
        names = ("labels", "decoder_input_ids") if with_answers else ()
        return on_meta(batch_size, sizes | dict.fromkeys(names, lengths.answer_tokens))

    _unasked = 0

    def _teaching(self, batch: Batch, answers: torch.Tensor) -> Batch:
        return batch | self._taught(answers)

    def _taught(self, labels: torch.Tensor) -> Batch:
        """Left to the library, mBART would start an answer with the token that it ends with, and an encoder-decoder of
        two models would hide a start that is padding, both unlike in generation."""
        planned = self.base.generation_config
        first = planned.decoder_start_token_id if planned.decoder_start_token_id is not None else planned.bos_token_id
        starts = torch.full_like(labels[:, :1], first)
        shifted = torch.cat([starts, labels[:, :-1]], dim=1)
        return {"labels": labels, "decoder_input_ids": shifted.masked_fill(shifted == IGNORED, self.tokens.pad)}

    def _written(self, ids: torch.Tensor, read: int) -> torch.Tensor:  # noqa: ARG002
        return ids

    def _in_front(self, read: int) -> int:  # noqa: ARG002
        return 1


def _has_segments(model: Any, tokenizer: Any) -> bool:
    """Whether the model has a table of which text a token belongs to, of several entries."""
    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        return False
    size = getattr(model.config, "type_vocab_size", None)
    return size > 1 if isinstance(size, int) else "token_type_ids" in tokenizer.model_input_names


def ordered(model: HfModel, logits: torch.Tensor) -> torch.Tensor:
    """The columns in the order of the task's labels."""
    order = model.built.label_order
    return logits if order is None else logits[:, list(order)]


def on_meta(batch_size: int, names: dict[str, int]) -> Batch:
    """Tensors of token ids and their like of these lengths."""
    return {n: torch.empty(batch_size, size, dtype=torch.long, device="meta") for n, size in names.items()}


def plan_generation(model: Any, tokens: Tokens) -> None:
    """Plain beam search. What weights bring beside their special tokens (sampling, a least length, ...) is of the
    texts they were made for."""
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    recurrent = "state" in inspect.signature(model.forward).parameters  # RWKV's cache cannot follow beams
    old = model.generation_config
    start = getattr(model.config, "decoder_start_token_id", None)
    ends = old.eos_token_id if isinstance(old.eos_token_id, list) else [old.eos_token_id]
    model.generation_config = make(
        do_sample=False,
        use_cache=not recurrent,
        pad_token_id=tokens.pad,
        bos_token_id=old.bos_token_id,
        eos_token_id=sorted({end for end in (*ends, tokens.end) if end is not None}) or None,
        decoder_start_token_id=old.decoder_start_token_id if start is None else start,
    )

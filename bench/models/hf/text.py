"""Transformers models that read texts: sequence classifiers, causal and sequence-to-sequence language models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import SpecError
from bench.models.common.tokens import IGNORED, meta_ids, pad
from bench.models.hf.model import Batch, Built, HfModel
from bench.models.hf.tokens import HfTokens, PromptTemplate, max_positions, max_question_length
from bench.plugins.contracts import CutTexts, GenerateOptions, InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image

# Default of ``question_max_tokens``.
_MAX_QUESTION = 128


class TextReader(HfModel):
    """Prompts and lengths of a model that reads texts."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        assert built.tokens is not None
        self.tokens: HfTokens = built.tokens
        others = self._template_length() + self._answer_room()
        self._longest_question = self.settings.question_max_tokens or min(
            _MAX_QUESTION, max_question_length(self.base.config, others)
        )
        # Else the first text without room would end a run.
        room = max_positions(self.base)
        if self.settings.question_max_tokens and room is not None and self._longest_question + others > room:
            raise SpecError(
                f"model.question_max_tokens is {self._longest_question}, but {self.base.config.model_type!r} has "
                f"{room} positions, of which prompt and answer take {others}: set it to at most "
                f"{max(1, room - others)}, or remove it"
            )

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """Lengths of these texts after padding."""
        return InputLengths(
            question_tokens=max(len(self.question(text)) for text in questions),
            answer_tokens=max(len(self._answer(text)) for text in answers) if self._writes else 0,
        )

    def max_lengths(self) -> InputLengths:
        """``question_max_tokens`` with the prompt around it, and ``answer_max_tokens``."""
        return InputLengths(
            question_tokens=self._longest_question + self._template_length(),
            answer_tokens=self.settings.answer_max_tokens if self._writes else 0,
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str]) -> CutTexts:
        """Numbers of texts longer than ``question_max_tokens`` and ``answer_max_tokens``."""
        longest = self.settings.answer_max_tokens - (self.tokens.end is not None)
        return CutTexts(
            questions=sum(self.tokens.is_longer(text, self._longest_question) for text in questions),
            answers=sum(self.tokens.is_longer(text, longest) for text in answers) if self._writes else 0,
        )

    def save(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer."""
        super().save(folder)
        self.tokens.tokenizer.save_pretrained(folder)

    def question(self, text: str) -> list[int]:
        """Ids of a question, cut, with the prompt around it."""
        return self.tokens.encode_prompt(text, self._template, self._longest_question)

    @cached_property
    def _template(self) -> PromptTemplate:
        return PromptTemplate(pieces=tuple((self.settings.prompt or "{question}").split("{question}")))

    def _template_length(self) -> int:
        return self.tokens.template_length(self._template)

    @property
    def _writes(self) -> bool:
        return self.built.task.output == "text"

    def _answer_room(self) -> int:
        """Positions of an answer beside the question."""
        return 0

    def _answer(self, text: str) -> list[int]:
        return self.tokens.encode_answer(text, self.settings.answer_max_tokens)

    def _inputs(self, questions: Sequence[str], *, left: bool) -> Batch:
        ids, mask = pad([self.question(text) for text in questions], self.tokens.pad, left=left)
        return {"input_ids": ids, "attention_mask": mask}


class SequenceClassifier(TextReader):
    """Chooses a label for a text, or a pair of texts: ``AutoModelForSequenceClassification``."""

    reads_pairs = True

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        self._has_token_types = _has_token_types(self.base, self.tokens.tokenizer)
        self._row = cache(self._encode)

    def collate(
        self,
        images: Sequence[Image],  # noqa: ARG002
        questions: Sequence[str],
        answers: Sequence[str],  # noqa: ARG002
        pairs: Sequence[str] = (),
    ) -> Batch:
        """``input_ids``, ``attention_mask`` and, where the model uses them, ``token_type_ids`` (batch, longest) int64;
        padded in front for a decoder-only model, which reads the label off the last token."""
        rows = self._read_rows(questions, pairs)
        left = self.built.decoder_only
        ids, mask = pad([ids for ids, _ in rows], self.tokens.pad, left=left)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self._has_token_types:
            filler = self.tokens.tokenizer.pad_token_type_id
            batch["token_type_ids"], _ = pad([types for _, types in rows], filler, left=left)
        return batch

    def lengths(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> InputLengths:  # noqa: ARG002
        """Length of these texts after padding."""
        longest = max(len(ids) for ids, _ in self._read_rows(questions, pairs))
        return InputLengths(question_tokens=longest, answer_tokens=0)

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str], pairs: Sequence[str] = ()) -> CutTexts:
        """Number of texts, or pairs, longer than ``question_max_tokens``."""
        if not pairs:
            return super().cut_texts(questions, answers)
        both = zip(questions, pairs, strict=True)
        longest = self._longest_question
        return CutTexts(questions=sum(self.tokens.is_longer(text, longest, second) for text, second in both), answers=0)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Shape (batch, labels), in the order of the task's labels."""
        return self.in_label_order(self.model(**batch).logits)

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:  # noqa: ARG002
        """As ``collate``, on meta."""
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if self._has_token_types else ()))
        return meta_ids(batch_size, dict.fromkeys(names, lengths.question_tokens))

    def _read_rows(self, questions: Sequence[str], pairs: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        seconds: Sequence[str | None] = pairs or [None] * len(questions)
        return [self._row(*row) for row in zip(questions, seconds, strict=True)]

    def _encode(self, text: str, second: str | None) -> tuple[list[int], list[int]]:
        """Ids and, where the model uses them, token types."""
        if second is not None:
            self._check_separator()
            return self.tokens.encode_pair(text, second, self._longest_question)
        ids = self.question(text)
        return ids, self.tokens.token_types(text, len(ids)) if self._has_token_types else []

    def _check_separator(self) -> None:
        """Raise SpecError if the two texts of a pair would become one."""
        count = self.tokens.tokenizer.num_special_tokens_to_add
        if count(pair=True) <= count(pair=False):
            raise SpecError(
                "the tokenizer puts nothing between two texts: write both into one, with what tells them apart, e.g. "
                '`text: "{premise} | {hypothesis}"`, and remove data.columns.text_pair'
            )
        if self.settings.prompt is not None:
            raise SpecError("model.prompt is of one text: remove it, or data.columns.text_pair")


class GenerativeModel(TextReader):
    """Writes an answer; the loss is the library's."""

    continues_prompt = True
    """Whether the output begins with the prompt, as that of a model without an encoder."""
    pads_prompts = True
    """Whether an answer stays the same with padding in front of its prompt."""

    def __init__(self, built: Built) -> None:
        super().__init__(built)
        configure_generation(self.base, self.tokens)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar mean over the tokens of the answers."""
        loss: torch.Tensor = self.model(**batch).loss
        return loss

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset(self.base.generation_config.eos_token_id or ())

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens, vocabulary) of answers by one forward pass, for ``bench.training.audit``."""
        scores: torch.Tensor = self.model(**self._with_answer_ids(batch, answers)).logits
        last = scores.shape[1] - self.continues_prompt  # its last scores are of the token behind the answer
        return scores[:, last - answers.shape[1] : last]

    def _with_answer_ids(self, batch: Batch, answers: torch.Tensor) -> Batch:
        """Training inputs with answers (rows, tokens) of one length."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Answers by beam search."""
        ids = self._generate_ids(batch, options)
        return self.tokens.decode(ids[:, batch["input_ids"].shape[1] :] if self.continues_prompt else ids)

    def _generate_ids(self, batch: Batch, options: GenerateOptions) -> torch.Tensor:
        """Ids by beam search, at most as many as the table of positions has room for."""
        most = options.max_new_tokens
        if (room := max_positions(self.base)) is not None:
            most = min(most, room - (batch["input_ids"].shape[1] if self.continues_prompt else 1))
        ids: torch.Tensor = self.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            num_beams=options.num_beams,
            max_new_tokens=most,
        )
        return ids


class CausalLM(GenerativeModel):
    """Continues the prompt: ``AutoModelForCausalLM``."""

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Answers by beam search, over all prompts at once or one length of prompts at a time."""
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
        pairs = [(self.question(text), self._answer(answer)) for text, answer in zip(questions, answers, strict=True)]
        ids, mask = pad([[*prompt, *answer] for prompt, answer in pairs], self.tokens.pad)
        labels, _ = pad([[IGNORED] * len(prompt) + answer for prompt, answer in pairs], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta, where the longest question has the longest answer."""
        both = lengths.question_tokens + (lengths.answer_tokens if with_answers else 0)
        names = ("input_ids", "attention_mask", *(("labels",) if with_answers else ()))
        return meta_ids(batch_size, dict.fromkeys(names, both))

    def _answer_room(self) -> int:
        return self.settings.answer_max_tokens

    @cached_property
    def _template(self) -> PromptTemplate:
        if self.settings.prompt is None and getattr(self.tokens.tokenizer, "chat_template", None):
            return PromptTemplate(pieces=self.tokens.chat_pieces(), special=False)
        pieces = (self.settings.prompt or "{question}\n").split("{question}")
        return PromptTemplate(pieces=tuple(pieces), ends=False)

    def _with_answer_ids(self, batch: Batch, answers: torch.Tensor) -> Batch:
        behind = {"input_ids": answers, "attention_mask": torch.ones_like(answers)}
        inputs = {name: torch.cat([batch[name], ids], dim=1) for name, ids in behind.items()}
        return inputs | {"labels": torch.cat([torch.full_like(batch["input_ids"], IGNORED), answers], dim=1)}


class Seq2SeqLM(GenerativeModel):
    """Reads the prompt with an encoder and writes with a decoder: ``AutoModelForSeq2SeqLM``."""

    continues_prompt = False

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:  # noqa: ARG002
        """``input_ids``, ``attention_mask`` (batch, longest question) int64; with answers, ``labels`` and
        ``decoder_input_ids`` (batch, longest answer), the labels behind the token that generation starts with."""
        batch = self._inputs(questions, left=False)
        if answers:
            batch = self._with_answer_ids(batch, pad([self._answer(text) for text in answers], IGNORED)[0])
        return batch

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta."""
        sizes = dict.fromkeys(("input_ids", "attention_mask"), lengths.question_tokens)
        names = ("labels", "decoder_input_ids") if with_answers else ()
        return meta_ids(batch_size, sizes | dict.fromkeys(names, lengths.answer_tokens))

    def _with_answer_ids(self, batch: Batch, answers: torch.Tensor) -> Batch:
        # The library's default starts mBART's answers with their last token, and masks a start that is padding in an
        # encoder-decoder of two models, both unlike generation.
        config = self.base.generation_config
        first = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.bos_token_id
        shifted = torch.cat([torch.full_like(answers[:, :1], first), answers[:, :-1]], dim=1)
        decoder_ids = shifted.masked_fill(shifted == IGNORED, self.tokens.pad)
        return batch | {"labels": answers, "decoder_input_ids": decoder_ids}


def _has_token_types(model: Any, tokenizer: Any) -> bool:
    """Whether the model has an embedding of several token types."""
    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        return False
    size = getattr(model.config, "type_vocab_size", None)
    return size > 1 if isinstance(size, int) else "token_type_ids" in tokenizer.model_input_names


def configure_generation(model: Any, tokens: HfTokens) -> None:
    """Set plain beam search, with the special tokens of the weights."""
    # Their other settings (sampling, a least length, ...) are for the texts that they were published for.
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

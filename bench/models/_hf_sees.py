"""Transformers models that look at an image and write: ``AutoModelForImageTextToText``, and BLIP's for questions.

Images and prompts go through the processor of the weights, which knows how many tokens an image takes and where they
stand. Models that write by a decoder apart from what reads (Florence-2, Pix2Struct, ...) are not supported, BLIP is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image as Pillow

from bench.errors import SpecError, WeightsError
from bench.models._hf_model import Batch
from bench.models._hf_text import IGNORED, Writer
from bench.models._hf_tokens import padded
from bench.protocols import GenerateOptions, InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models._hf_build import Built

_SIZE = (224, 224)
"""Of the image by which the shapes of a batch are found; a processor that keeps proportions makes other numbers of
tokens of others."""
_SUFFIX_KIND = {"paligemma": 1}
"""Model type -> ``token_type_ids`` of an answer, where not 0: PaliGemma reads a prompt in both directions."""


class Seeing(Writer):
    """Goes on writing behind image and question, in one sequence."""

    def __init__(self, built: Built) -> None:
        if built.module.config.is_encoder_decoder:
            raise SpecError(
                f"family 'hf' cannot train {built.module.config.model_type!r} on images and questions: it writes by a "
                "decoder of its own; choose a model that writes behind its prompt, such as llava, smolvlm or paligemma"
            )
        super().__init__(built)

    @cached_property
    def processor(self) -> Any:
        """Of weights or settings. Raises WeightsError if it is not there."""
        from transformers import AutoProcessor

        auto: Any = AutoProcessor
        remedy = "set model.tokenizer to the id or folder of one, or take weights (`id`, `path`) that have one"
        if self.built.folder is None:
            raise WeightsError(f"{type(self.base).__name__} needs a processor for images and texts: {remedy}")
        try:
            processor = auto.from_pretrained(self.built.folder, local_files_only=True)
        except Exception as error:  # of several libraries
            raise WeightsError(f"no processor could be loaded from {self.built.folder} ({error}): {remedy}") from error
        if not hasattr(processor, "image_processor"):
            raise WeightsError(f"{self.built.folder} has no processor for images: {remedy}")
        processor.tokenizer.padding_side = "left"
        processor.tokenizer.pad_token = self.tokens.tokenizer.pad_token
        return processor

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:
        """What the processor makes of images and prompts, padded in front; with answers, these behind them in
        ``input_ids`` and all that is as long, and ``labels``, which leave the rest out."""
        batch = self._read([image.convert("RGB") for image in images], questions)
        return self._with_answers(batch, answers) if answers else batch

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta. Raises WeightsError where the processor is not here."""
        one = self._read([Pillow.new("RGB", _SIZE)], [""])
        read = one["input_ids"].shape[1]
        both = lengths.question_tokens + (lengths.answer_tokens if with_answers else 0)
        batch = {}
        for name, tensor in one.items():
            rest = [both if tensor.dim() > 1 and size == read and at == 0 else size for at, size in _sizes(tensor)]
            batch[name] = torch.empty(batch_size * len(tensor), *rest, dtype=tensor.dtype, device="meta")
        if with_answers:
            batch["labels"] = torch.empty(batch_size, both, dtype=torch.long, device="meta")
        return batch

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Beam search."""
        ids = self.model.generate(**batch, num_beams=options.num_beams, max_new_tokens=options.max_new_tokens)
        return self.tokens.texts(self._written(ids, batch["input_ids"].shape[1]))

    def save(self, folder: Path) -> None:
        """With the processor."""
        super().save(folder)
        self.processor.save_pretrained(folder)

    def _read(self, images: Sequence[Image], questions: Sequence[str]) -> Batch:
        texts = [self.tokens.cut(text, self._longest_question) for text in questions]
        options = self._image_options()
        if self.settings.prompt is None and getattr(self.processor, "chat_template", None):
            said = [self._said(image, text) for image, text in zip(images, texts, strict=True)]
            options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, **options}
            found = self.processor.apply_chat_template(said, padding=True, return_tensors="pt", **options)
        else:
            token = getattr(self.processor, "image_token", "")
            prompt = self.settings.prompt or "{question}\n"
            prompts = [f"{token}{prompt.replace('{question}', text)}" for text in texts]
            own = [[image] for image in images] if token else list(images)
            found = self.processor(images=own, text=prompts, padding=True, return_tensors="pt", **options)
        return {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}

    def _image_options(self) -> dict[str, Any]:
        image = self.settings.image
        given: dict[str, Any] = {"image_mean": image.mean and list(image.mean)}
        given["image_std"] = image.std and list(image.std)
        given["size"] = image.size and {"height": image.size, "width": image.size}
        return {name: value for name, value in given.items() if value is not None}

    @staticmethod
    def _said(image: Image, text: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]

    def _with_answers(self, batch: Batch, answers: Sequence[str]) -> Batch:
        ids, mask = padded([self._target(text) for text in answers], self.tokens.pad)
        read = batch["input_ids"].shape
        kind = _SUFFIX_KIND.get(self.base.config.model_type, 0)
        behind = {"input_ids": ids, "attention_mask": mask}
        found = {
            name: torch.cat([tensor, behind.get(name, torch.full_like(ids, kind)).to(tensor.dtype)], dim=1)
            if tensor.shape == read
            else tensor
            for name, tensor in batch.items()
        }
        labels = torch.full_like(found["input_ids"], IGNORED)
        labels[:, read[1] :] = ids.masked_fill(mask == 0, IGNORED)
        return found | {"labels": labels}

    def _prompt(self, text: str) -> list[int]:
        """For lengths alone: as many ids as the processor makes of this text and an image."""
        return [0] * self._around + self.tokens.ids(text, special=False)

    @cached_property
    def _around(self) -> int:
        """Tokens that the processor puts around a question."""
        self._longest_question = 1  # of none
        try:
            return int(self._read([Pillow.new("RGB", _SIZE)], [""])["input_ids"].shape[1])
        except WeightsError:
            if next(self.base.parameters()).device.type != "meta":
                raise
            return 0  # counting its parameters needs no processor

    def _written(self, ids: torch.Tensor, read: int) -> torch.Tensor:
        return ids[:, read:]


class BlipAnswers(Seeing):
    """``BlipForQuestionAnswering``: question and image are read together, and a decoder writes the answer."""

    def _with_answers(self, batch: Batch, answers: Sequence[str]) -> Batch:
        text = self.base.config.text_config
        rows = [[text.bos_token_id, *self._target(answer)] for answer in answers]
        ids, mask = padded(rows, self.tokens.pad)
        return batch | {
            "decoder_input_ids": ids,
            "decoder_attention_mask": mask,
            "labels": ids.masked_fill(mask == 0, IGNORED),
        }

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta."""
        batch = super().meta_inputs(batch_size, lengths, with_answers=False)
        names = ("decoder_input_ids", "decoder_attention_mask", "labels") if with_answers else ()
        made = {n: torch.empty(batch_size, 1 + lengths.answer_tokens, dtype=torch.long, device="meta") for n in names}
        return batch | made

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Beam search from the token that starts an answer."""
        ids = self.model.generate(**batch, num_beams=options.num_beams, max_new_tokens=options.max_new_tokens)
        return self.tokens.texts(ids)


def _sizes(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """Place and size of all axes but the first."""
    return list(enumerate(tensor.shape[1:]))

"""Transformers models that read an image and write: ``AutoModelForImageTextToText``, and BLIP for questions.

The weights' processor puts an image's tokens into its prompt. Encoder-decoders such as Florence-2 and Pix2Struct are
not supported, except BLIP.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image as Pillow
from PIL.Image import Image

from bench.errors import EstimateError, SpecError, WeightsError
from bench.models.common.parts import add_unused
from bench.models.common.tokens import IGNORED, meta_ids, pad
from bench.models.hf.default_parts import towers
from bench.models.hf.model import Batch, Built
from bench.models.hf.text import GenerativeModel
from bench.plugins.contracts import GenerateOptions, InputLengths

# Size of the image for shapes on meta; a processor that keeps proportions makes more or fewer tokens of others.
_SIZE = (224, 224)
# Number of tokens around a question of BLIP: ``[CLS]`` and ``[SEP]``.
_AROUND_BLIP = 2
# Model type -> ``token_type_ids`` of an answer, if not 0: PaliGemma reads a prompt in both directions.
_ANSWER_TYPE = {"paligemma": 1}


class ImageTextToText(GenerativeModel):
    """Continues a sequence of image and question."""

    def __init__(self, built: Built) -> None:
        if built.module.config.is_encoder_decoder:
            raise SpecError(
                f"family 'hf' cannot train {built.module.config.model_type!r} on images and questions: it writes by a "
                "decoder of its own; choose a model that writes behind its prompt, such as llava, smolvlm or paligemma"
            )
        super().__init__(built)
        self._unused_vision_params: list[torch.Tensor] | None = None
        """Trained tensors of the vision tower without a part in the loss; null before the first loss."""

    @cached_property
    def processor(self) -> Any:
        """Processor of weights or settings. Raises WeightsError if it is missing."""
        from transformers import AutoProcessor

        auto: Any = AutoProcessor
        remedy = "set model.tokenizer to the id or folder of one, or take weights (`id`, `path`) that have one"
        if self.built.folder is None:
            raise WeightsError(f"{type(self.base).__name__} needs a processor for images and texts: {remedy}")
        try:
            processor = auto.from_pretrained(self.built.folder, local_files_only=True)
        except Exception as error:  # the processors raise errors of several libraries
            raise WeightsError(f"no processor could be loaded from {self.built.folder} ({error}): {remedy}") from error
        if not hasattr(processor, "image_processor"):
            raise WeightsError(f"{self.built.folder} has no processor for images: {remedy}")
        processor.tokenizer.padding_side = "left"
        processor.tokenizer.pad_token = self.tokens.tokenizer.pad_token
        return processor

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:
        """The processor's tensors of images and prompts, padded in front; with answers behind the prompts, and
        ``labels`` of the answers."""
        texts = [self.tokens.cut(text, self._longest_question) for text in questions]
        batch = self._process([image.convert("RGB") for image in images], texts)
        return self._with_answers(batch, answers) if answers else batch

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta. Raises WeightsError without a processor."""
        one = self._process([Pillow.new("RGB", _SIZE)], [""])
        both = lengths.question_tokens + (lengths.answer_tokens if with_answers else 0)
        batch = {}
        for name, tensor in one.items():  # of texts, or of images, which may have several rows each
            rest = (both,) if tensor.shape == one["input_ids"].shape else tensor.shape[1:]
            batch[name] = torch.empty(batch_size * len(tensor), *rest, dtype=tensor.dtype, device="meta")
        return batch | (meta_ids(batch_size, {"labels": both}) if with_answers else {})

    def loss(self, batch: Batch) -> torch.Tensor:
        """Scalar mean over the tokens of the answers."""
        # LLaVA and its kin use the features of a layer before the last: later layers get a gradient of zero.
        with _assume_image_tokens_fit(batch):
            loss = super().loss(batch)
        if self._unused_vision_params is None and loss.requires_grad:
            of_towers = (p for path in towers(self.base) for p in self.base.get_submodule(path).parameters())
            reached = _leaves(loss)
            self._unused_vision_params = [p for p in of_towers if p.requires_grad and id(p) not in reached]
        return add_unused(loss, self._unused_vision_params or ())

    def _generate_ids(self, batch: Batch, options: GenerateOptions) -> torch.Tensor:
        with _assume_image_tokens_fit(batch):
            ids: torch.Tensor = self.model.generate(
                **batch, num_beams=options.num_beams, max_new_tokens=options.max_new_tokens
            )
        return ids

    def save(self, folder: Path) -> None:
        """Write weights, configuration, tokenizer and processor."""
        super().save(folder)
        self.processor.save_pretrained(folder)

    def _process(self, images: Sequence[Image], texts: Sequence[str]) -> Batch:
        image = self.settings.image
        given = {
            "image_mean": image.mean and list(image.mean),
            "image_std": image.std and list(image.std),
            "size": image.size and {"height": image.size, "width": image.size},
        }
        options: dict[str, Any] = {**self._padding(), "return_tensors": "pt"}
        options |= {name: value for name, value in given.items() if value is not None}
        if self._uses_chat_template:
            messages = [_chat_message(text, picture) for picture, text in zip(images, texts, strict=True)]
            apply = self.processor.apply_chat_template
            if "processor_kwargs" in inspect.signature(apply).parameters:  # newer releases warn without it
                tensors = options.pop("return_tensors")
                options = {"return_tensors": tensors, "processor_kwargs": options}
            inputs = apply(messages, tokenize=True, return_dict=True, add_generation_prompt=True, **options)
        else:
            nested = [[picture] for picture in images] if getattr(self.processor, "image_token", "") else list(images)
            inputs = self.processor(images=nested, text=[self._prompt_text(text) for text in texts], **options)
        return {name: tensor for name, tensor in inputs.items() if isinstance(tensor, torch.Tensor)}

    @property
    def _uses_chat_template(self) -> bool:
        return self.settings.prompt is None and bool(getattr(self.processor, "chat_template", None))

    def _prompt_text(self, text: str) -> str:
        """Prompt, before the processor puts an image's tokens into it."""
        if self._uses_chat_template:
            message = _chat_message(text)
            return str(self.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        return getattr(self.processor, "image_token", "") + (self.settings.prompt or "{question}\n").replace(
            "{question}", text
        )

    def _padding(self) -> dict[str, Any]:
        return {"padding": True}

    def _with_answers(self, batch: Batch, answers: Sequence[str]) -> Batch:
        return self._append(batch, *pad([self._answer(text) for text in answers], self.tokens.pad))

    def _with_answer_ids(self, batch: Batch, answers: torch.Tensor) -> Batch:
        return self._append(batch, answers, torch.ones_like(answers))

    def _append(self, batch: Batch, ids: torch.Tensor, mask: torch.Tensor) -> Batch:
        """Put answers behind prompts, in every tensor with an entry for each token."""
        prompts = batch["input_ids"].shape
        other = torch.full_like(ids, _ANSWER_TYPE.get(self.base.config.model_type, 0))
        behind = {"input_ids": ids, "attention_mask": mask}
        per_token = {name: tensor for name, tensor in batch.items() if tensor.shape == prompts}
        inputs = batch | {
            name: torch.cat([tensor, behind.get(name, other).to(tensor.dtype)], dim=1)
            for name, tensor in per_token.items()
        }
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        labels[:, prompts[1] :] = ids.masked_fill(mask == 0, IGNORED)
        return inputs | {"labels": labels}

    def question(self, text: str) -> list[int]:
        """Ids of a cut question and an image; only their number is right."""
        return self._prompt(self.tokens.cut(text, self._longest_question))

    def _template_length(self) -> int:
        return len(self._prompt(""))

    def _prompt(self, text: str) -> list[int]:
        if self._image_tokens is None:
            return self.tokens.encode(text)
        return [0] * self._image_tokens + self.tokens.encode(self._prompt_text(text))

    @cached_property
    def _image_tokens(self) -> int | None:
        """Number of an image's tokens; null on meta without a processor, as counting parameters needs none."""
        try:
            length = self._process([Pillow.new("RGB", _SIZE)], [""])["input_ids"].shape[1]
        except WeightsError:
            if next(self.base.parameters()).device.type != "meta":
                raise
            return None
        return int(length) - len(self.tokens.encode(self._prompt_text("")))


class BlipVqa(ImageTextToText):
    """``BlipForQuestionAnswering``: an encoder reads question and image, a decoder writes the answer.

    The library's decoder attends to the padding of questions, so all questions are padded to one length; the family
    ``miss`` masks the padding instead.
    """

    continues_prompt = False

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """As ``max_lengths`` for questions."""
        answer_tokens = super().lengths(questions, answers).answer_tokens
        return InputLengths(question_tokens=self.max_lengths().question_tokens, answer_tokens=answer_tokens)

    def _padding(self) -> dict[str, Any]:
        self.processor.tokenizer.padding_side = "right"
        return {"padding": "max_length", "max_length": self._longest_question + _AROUND_BLIP, "truncation": True}

    def _prompt(self, text: str) -> list[int]:
        return self.tokens.encode(text)

    def _prompt_text(self, text: str) -> str:
        return (self.settings.prompt or "{question}").replace("{question}", text)

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """Scores of the decoder, as the whole model returns none."""
        image = self.base.vision_model(pixel_values=batch["pixel_values"]).last_hidden_state
        question = self.base.text_encoder(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], encoder_hidden_states=image
        ).last_hidden_state
        starts = torch.full_like(answers[:, :1], self.base.config.text_config.bos_token_id)
        ids = torch.cat([starts, answers[:, :-1]], dim=1)
        scores: torch.Tensor = self.base.text_decoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=question,
            encoder_attention_mask=batch["attention_mask"],
        ).logits
        return scores[:, -answers.shape[1] :]

    def _with_answers(self, batch: Batch, answers: Sequence[str]) -> Batch:
        first = self.base.config.text_config.bos_token_id
        ids, mask = pad([[first, *self._answer(answer)] for answer in answers], self.tokens.pad)
        labels = ids.masked_fill(mask == 0, IGNORED)
        return batch | {"decoder_input_ids": ids, "decoder_attention_mask": mask, "labels": labels}

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta."""
        batch = super().meta_inputs(batch_size, lengths, with_answers=False)
        names = ("decoder_input_ids", "decoder_attention_mask", "labels") if with_answers else ()
        return batch | meta_ids(batch_size, dict.fromkeys(names, 1 + lengths.answer_tokens))


@contextmanager
def _assume_image_tokens_fit(batch: Batch) -> Iterator[None]:
    """On meta, skip the library's comparison of an image's features with its tokens in the text.

    Raises EstimateError where the library depends on values in other ways.
    """
    if not batch["input_ids"].is_meta:
        yield
        return
    with mock.patch.object(torch, "_check_tensor_all_with", return_value=None):
        try:
            yield
        except (ValueError, IndexError, RuntimeError) as error:
            raise EstimateError(
                f"transformers goes by the values of images and texts here: {error}; some models can be estimated with "
                "evaluate.num_beams: 1, where it need not count an image's tokens"
            ) from error


def _leaves(loss: torch.Tensor) -> set[int]:
    """Ids of the leaves that a backward pass from ``loss`` would reach."""
    leaves: set[int] = set()
    seen, ahead = {loss.grad_fn}, [loss.grad_fn]
    while ahead:
        node: Any = ahead.pop()
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        new = {behind for behind, _ in node.next_functions if behind is not None} - seen
        seen |= new
        ahead += new
    return leaves


def _chat_message(text: str, image: Image | None = None) -> list[dict[str, Any]]:
    """A question for chat templates; without an image only its placeholder."""
    seen: dict[str, Any] = {"type": "image"} | ({} if image is None else {"image": image})
    return [{"role": "user", "content": [seen, {"type": "text", "text": text}]}]

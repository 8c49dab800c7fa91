"""MISS as a worker runs it: preprocessing, loss and generation around ``BlipForQuestionAnswering``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Resampling
from transformers import BlipConfig, BlipForQuestionAnswering

from bench.errors import WeightsError
from bench.models.common.files import read_json
from bench.models.common.images import stack_pixels
from bench.models.common.parts import refuse_adapters
from bench.models.common.tokens import IGNORED, pad
from bench.models.common.vqa import Batch, VqaModel, meta_inputs, save_tensors
from bench.models.miss import dinov2_minilm, patches, weights
from bench.models.miss.settings import PARTS, Settings
from bench.models.miss.tokens import MissTokens, build_vocabulary, words_of_weights, words_without_weights
from bench.patches.transformers import length_as_transformers_4, patch_blip_text
from bench.plugins.contracts import BenchModel, GenerateOptions, InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image

# Fields taken from the weights' ``config.json``; its others, except ``_MAY_DIFFER``, must be as in the spec.
_FIXED_BY_WEIGHTS = ("layer_norm_eps", "hidden_act")
_MAY_DIFFER = {"image_size", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob"}


class MissModel(VqaModel):
    """A built MISS; see ``bench.plugins.contracts.TextModel``."""

    tokens: MissTokens

    def __init__(
        self, settings: Settings, module: BlipForQuestionAnswering, tokens: MissTokens, *, has_vocabulary: bool
    ) -> None:
        limits = InputLengths(question_tokens=settings.question_max_tokens, answer_tokens=settings.answer_max_tokens)
        super().__init__(module, weights.MODULES, tokens, PARTS, max_lengths=limits, has_vocabulary=has_vocabulary)
        self.settings = settings
        self._edge: int = settings.vision_config()["image_size"]

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:
        """``pixel_values`` (batch, 3, size, size) fp32; ``question_ids``, ``question_mask`` and, if there are answers,
        ``answer_ids``, ``answer_mask`` (batch, longest) int64. All on the CPU.
        """
        ids, mask = pad([self.question_ids(text) for text in questions], self.tokens.pad)
        settings = self.settings.image
        pixels = stack_pixels(images, self._edge, Resampling[settings.interpolation.upper()]) / 255
        if settings.divide_by_255:
            pixels = pixels / 255
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (settings.mean, settings.std))
        batch = {"pixel_values": ((pixels - mean) / std).contiguous(), "question_ids": ids, "question_mask": mask}
        if answers:
            rows = [self.answer_ids(text) for text in answers]
            batch["answer_ids"], batch["answer_mask"] = pad(rows, self.tokens.pad)
        return batch

    def loss(self, batch: Batch) -> torch.Tensor:
        """Label-smoothed cross-entropy, summed over an answer's tokens, mean over the batch, as the released code's."""
        states = self._question_states(batch)
        labels = batch["answer_ids"].masked_fill(batch["answer_mask"] == 0, IGNORED)
        output = self.part("dec")(
            input_ids=batch["answer_ids"],
            attention_mask=batch["answer_mask"],
            encoder_hidden_states=states,
            encoder_attention_mask=_states_mask(states, batch),
            labels=labels,
            reduction="none",
        )
        return torch.mean(output.loss)

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Answers by beam search from ``[DEC]`` to ``[SEP]``.

        Without ``attend_padding`` the padding of questions is masked, unlike in BLIP's ``generate``.
        """
        states = self._question_states(batch)
        decoder: Any = self.part("dec")
        mask = _states_mask(states, batch)
        whole = options.length_denominator == "generated" or options.num_beams == 1
        with nullcontext() if whole else length_as_transformers_4(self.bare_part("dec"), self.tokens.sep):
            ids = decoder.generate(
                input_ids=torch.full((len(states), 1), self.tokens.dec, device=states.device),
                encoder_hidden_states=states,
                encoder_attention_mask=torch.ones_like(mask) if options.attend_padding else mask,
                eos_token_id=self.tokens.sep,
                pad_token_id=self.tokens.pad,
                num_beams=options.num_beams,
                max_new_tokens=options.max_new_tokens,
                do_sample=False,
            )
        return [self.tokens.decode(row) for row in ids.tolist()]

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens, vocabulary) of answers by one forward pass, for ``bench.training.audit``."""
        states = self._question_states(batch)
        starts = torch.full((len(states), 1), self.tokens.dec, device=states.device)
        ids = torch.cat([starts, answers[:, :-1]], dim=1)
        output = self.part("dec")(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=states,
            encoder_attention_mask=_states_mask(states, batch),
        )
        scores: torch.Tensor = output.logits[:, -answers.shape[1] :]  # behind virtual tokens
        return scores

    def checkpoint_activations(self) -> None:
        """In every layer of all parts."""
        patches.enable_checkpointing(self.module)

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta."""
        tokens = dict.fromkeys(("question_ids", "question_mask"), lengths.question_tokens)
        if with_answers:
            tokens |= dict.fromkeys(("answer_ids", "answer_mask"), lengths.answer_tokens)
        return meta_inputs(batch_size, self._edge, tokens)

    def facts(self) -> dict[str, int | str]:
        """Edge of the images in pixels, attention of the ViT, rows of the word embedding."""
        return {
            "image_size": self._edge,
            "attention": self.settings.attention,
            "vocab_size": self.module.config.text_config.vocab_size,
        }

    def _question_states(self, batch: Batch) -> torch.Tensor:
        image = self.part("vit")(pixel_values=batch["pixel_values"]).last_hidden_state
        output = self.part("jtm")(
            input_ids=batch["question_ids"], attention_mask=batch["question_mask"], encoder_hidden_states=image
        )
        states: torch.Tensor = output.last_hidden_state
        return states


def _states_mask(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mask (batch, states) of the question's words and of virtual tokens in front (Lester et al. 2021)."""
    mask = batch["question_mask"]
    return torch.nn.functional.pad(mask, (states.shape[1] - mask.shape[1], 0), value=1)


def build(settings: Settings, *, texts: Sequence[str], device: str) -> MissModel:
    """Build with weights loaded. Raises WeightsError."""
    words, has_vocabulary = _words(settings, texts, device)
    if not has_vocabulary and not texts and settings.text_config()["vocab_size"] is None:
        raise WeightsError(
            "the vocabulary, and so the size of the embedding, comes from the data set's texts, which are not here; "
            "without them set model.text.vocab_size"
        )
    tokens = MissTokens(words)
    config = _config(settings, tokens, device)
    with torch.device("meta" if device == "meta" else "cpu"):  # random numbers are the CPU's on every device
        module = BlipForQuestionAnswering(config)
    if device != "meta":
        if settings.weights is not None and settings.weights.kind == "dinov2_minilm":
            dinov2_minilm.load(module)
        elif settings.weights is not None:
            weights.load(module, settings.weights)
        torch.nn.Module.to(module, device)
    for text_model in (module.text_encoder, module.text_decoder.bert):
        patch_blip_text(text_model)
    if settings.attention == "sdpa":
        patches.fuse_attention(module.vision_model)
    patches.add_drop_path(module.vision_model, settings.vision_config()["drop_path"])
    return MissModel(settings, module, tokens, has_vocabulary=has_vocabulary)


def _words(settings: Settings, texts: Sequence[str], device: str) -> tuple[list[str], bool]:
    """The weights' vocabulary, or that of the texts; and whether a run uses the same."""
    if settings.weights is None:
        return build_vocabulary(texts), bool(texts)
    # On meta the weights may be missing: an estimate works without them.
    if device != "meta":
        return words_of_weights(settings.weights), True
    words = words_without_weights(settings.weights, settings.text_config()["vocab_size"])
    return (words, True) if words else (build_vocabulary(texts), False)


def _config(settings: Settings, tokens: MissTokens, device: str) -> BlipConfig:
    vision, text = settings.vision_config(), settings.text_config()
    vision.pop("drop_path")
    text["vocab_size"] = tokens.embedding_rows(text["vocab_size"])
    if device != "meta" and settings.weights is not None and settings.weights.kind in ("hub", "folder", "bundled"):
        path = weights.files(settings.weights)[1]
        stored = read_json(path)
        if not isinstance(stored, dict) or not {"vision_config", "text_config"} <= stored.keys():
            raise WeightsError(f"{path} is no configuration of BLIP: expected vision_config and text_config in it")
        _adopt(vision, stored["vision_config"], f"{path}: vision_config")
        _adopt(text, stored["text_config"], f"{path}: text_config")
    text |= {
        "bos_token_id": tokens.dec,
        "eos_token_id": tokens.sep,
        "sep_token_id": tokens.sep,
        "pad_token_id": tokens.pad,
        "label_smoothing": settings.label_smoothing,
    }
    return BlipConfig(vision_config=vision, text_config=text, initializer_range=settings.initializer_range)


def _adopt(ours: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Take ``_FIXED_BY_WEIGHTS`` from the stored fields, and raise WeightsError where others differ from the spec's."""
    ours |= {name: stored[name] for name in _FIXED_BY_WEIGHTS if name in stored}
    wrong = [
        f"{name} is {stored[name]} there, {value} in the spec"
        for name, value in ours.items()
        if name in stored and name not in _MAY_DIFFER and stored[name] != value
    ]
    if wrong:
        raise WeightsError(f"{where}: {'; '.join(wrong)}. Set these fields under `model` to the weights' values")


def save(model: BenchModel, folder: Path) -> None:
    """Write tensors, configuration and vocabulary. Raises WeightsError for a model with adapters."""
    assert isinstance(model, MissModel)
    refuse_adapters(model.module)
    folder.mkdir(parents=True, exist_ok=True)
    tied = dict(model.module._tied_weights_keys or {})
    state = {name: tensor for name, tensor in model.module.state_dict().items() if name not in tied}
    save_tensors(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.module.config.save_pretrained(folder)
    model.tokens.save(folder)

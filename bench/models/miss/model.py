"""MISS as the worker sees it: parts, preprocessing, loss and generation around ``BlipForQuestionAnswering``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Resampling
from transformers import BlipConfig, BlipForQuestionAnswering

from bench.errors import WeightsError
from bench.models.miss import PARTS, adapters, attention, checkpointing, files, weights
from bench.models.miss.tokens import Tokens, words_of
from bench.patches.transformers import length_as_transformers_4, patch_blip_text
from bench.plugins.contracts import BenchModel, CutTexts, GenerateOptions, InputLengths, PartFacts

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models.miss import ImageSettings, Settings

_FIXED_BY_WEIGHTS = ("layer_norm_eps", "hidden_act")
"""Fields taken from the weights' ``config.json``; all that set shapes must be the same there as in the spec."""


class MissModel:
    """A built MISS; see ``bench.plugins.contracts.BenchModel``."""

    def __init__(
        self, settings: Settings, module: BlipForQuestionAnswering, tokens: Tokens, *, has_vocabulary: bool
    ) -> None:
        self.settings = settings
        self.module: Any = module
        self.tokens = tokens
        self.has_vocabulary = has_vocabulary
        self.part_facts: Mapping[str, PartFacts] = PARTS

    def part(self, name: str) -> torch.nn.Module:
        """The part's module, adapted or not."""
        part: torch.nn.Module = self.module.get_submodule(adapters.MODULES[name])
        return part

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in the place of the part."""
        setattr(self.module, adapters.MODULES[name], adapted)

    def collate(
        self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """``pixel_values`` (batch, 3, size, size) fp32; ``question_ids``, ``question_mask`` and, if there are answers,
        ``answer_ids``, ``answer_mask`` (batch, longest) int64. All on the CPU.
        """
        ids, mask = self.tokens.questions(questions, self.settings.question_max_tokens)
        batch = {"pixel_values": self._pixels(images), "question_ids": ids, "question_mask": mask}
        if answers:
            batch["answer_ids"], batch["answer_mask"] = self.tokens.answers(answers, self.settings.answer_max_tokens)
        return batch

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Label-smoothed cross-entropy summed over an answer's tokens, mean over the batch, as the released code's."""
        states = self._question_states(batch)
        labels = batch["answer_ids"].masked_fill(batch["answer_mask"] == 0, -100)
        output = self.part("dec")(
            input_ids=batch["answer_ids"],
            attention_mask=batch["answer_mask"],
            encoder_hidden_states=states,
            encoder_attention_mask=_mask_of(states, batch),
            labels=labels,
            reduction="none",
        )
        return torch.mean(output.loss)

    @torch.no_grad()
    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
        """Beam search from ``[DEC]`` to ``[SEP]``. Padded question tokens are masked, so that an answer does not depend
        on the other questions of its batch; unlike in BLIP's ``generate``, unless ``attend_padding`` is on.
        """
        states = self._question_states(batch)
        decoder: Any = self.part("dec")
        mask = _mask_of(states, batch)
        with self._lengths(decoder, options):
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

    def _lengths(self, decoder: Any, options: GenerateOptions) -> AbstractContextManager[None]:
        """Within it, what beam search takes for the length of an answer is as the options say."""
        if options.length_denominator == "generated" or options.num_beams == 1:
            return nullcontext()
        bare = decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder
        return length_as_transformers_4(bare, self.tokens.sep)

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset({self.tokens.sep})

    def forward_scores(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """As ``bench.training.audit`` asks for them."""
        states = self._question_states(batch)
        starts = torch.full((len(states), 1), self.tokens.dec, device=states.device)
        ids = torch.cat([starts, answers[:, :-1]], dim=1)
        output = self.part("dec")(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=states,
            encoder_attention_mask=_mask_of(states, batch),
        )
        scores: torch.Tensor = output.logits[:, -answers.shape[1] :]  # behind virtual tokens
        return scores

    def checkpoint_activations(self) -> None:
        """In every layer of all parts."""
        checkpointing.checkpoint(self.module)

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """What ``collate`` pads these questions and answers to."""
        return InputLengths(
            question_tokens=self.tokens.longest(questions, self.settings.question_max_tokens),
            answer_tokens=self.tokens.longest(answers, self.settings.answer_max_tokens),
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str]) -> CutTexts:
        """How many are longer than ``question_max_tokens`` and ``answer_max_tokens``."""
        return CutTexts(
            questions=self.tokens.count_cut(questions, self.settings.question_max_tokens),
            answers=self.tokens.count_cut(answers, self.settings.answer_max_tokens),
        )

    def max_lengths(self) -> InputLengths:
        """``question_max_tokens`` and ``answer_max_tokens``."""
        return InputLengths(
            question_tokens=self.settings.question_max_tokens, answer_tokens=self.settings.answer_max_tokens
        )

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> dict[str, torch.Tensor]:
        """As ``collate``, on meta."""
        size = self.settings.vision_config()["image_size"]
        texts = {"question": lengths.question_tokens} | ({"answer": lengths.answer_tokens} if with_answers else {})
        batch = {"pixel_values": torch.empty(batch_size, 3, size, size, device="meta")}
        for text, tokens in texts.items():
            for kind in ("ids", "mask"):
                batch[f"{text}_{kind}"] = torch.empty(batch_size, tokens, dtype=torch.long, device="meta")
        return batch

    def facts(self) -> dict[str, int | str]:
        """Edge of the images in pixels, attention of the ViT, and rows of the word embedding, which for ``tiny`` depend
        on the texts.
        """
        return {
            "image_size": self.settings.vision_config()["image_size"],
            "attention": self.settings.attention,
            "vocab_size": self.module.config.text_config.vocab_size,
        }

    def _question_states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image = self.part("vit")(pixel_values=batch["pixel_values"]).last_hidden_state
        output = self.part("jtm")(
            input_ids=batch["question_ids"], attention_mask=batch["question_mask"], encoder_hidden_states=image
        )
        states: torch.Tensor = output.last_hidden_state
        return states

    def _pixels(self, images: Sequence[Image]) -> torch.Tensor:
        settings: ImageSettings = self.settings.image
        size = self.settings.vision_config()["image_size"]
        resample = Resampling[settings.interpolation.upper()]
        rows = [np.asarray(image.convert("RGB").resize((size, size), resample), dtype=np.float32) for image in images]
        pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) / 255
        if settings.divide_by_255:
            pixels = pixels / 255
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (settings.mean, settings.std))
        return ((pixels - mean) / std).contiguous()


def _mask_of(states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which states of the question the decoder attends to: its words, and virtual tokens that peft put before them, as
    in an encoder with prompts (Lester et al. 2021). Shape (batch, states)."""
    mask = batch["question_mask"]
    return torch.nn.functional.pad(mask, (states.shape[1] - mask.shape[1], 0), value=1)


def build(settings: Settings, *, texts: Sequence[str], device: str) -> MissModel:
    """See ``bench.models.miss.build``."""
    words, own = _words(settings, texts, device)
    if not own and not texts and settings.text_config()["vocab_size"] is None:
        raise WeightsError(
            "the vocabulary, and so the size of the embedding, comes from the data set's texts, which are not here; "
            "without them set model.text.vocab_size"
        )
    tokens = Tokens(words)
    config = _config(settings, tokens, device)
    with torch.device("meta" if device == "meta" else "cpu"):
        module = BlipForQuestionAnswering(config)
    if device != "meta":
        _load(settings, module)
        torch.nn.Module.to(module, device)
    for text_model in (module.text_encoder, module.text_decoder.bert):
        patch_blip_text(text_model)
    if settings.attention == "sdpa":
        attention.fuse(module.vision_model)
    _add_drop_path(module, settings.vision_config()["drop_path"])
    return MissModel(settings, module, tokens, has_vocabulary=own)


def save(model: BenchModel, folder: Path) -> None:
    """See ``bench.models.miss.save``. Raises WeightsError for a model with adapters, which has no plain layout."""
    from safetensors.torch import save_file

    assert isinstance(model, MissModel)
    tied = dict(model.module._tied_weights_keys or {})
    state = {n: t.detach().float().cpu().contiguous() for n, t in model.module.state_dict().items() if n not in tied}
    if set(state) != _plain_names(model.module.config):
        raise WeightsError("a model with adapters cannot be saved as a whole; train its parts (T) or save the adapter")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    model.module.config.save_pretrained(folder)
    model.tokens.save(folder)


def _plain_names(config: BlipConfig) -> set[str]:
    with torch.device("meta"):
        plain = BlipForQuestionAnswering(config)
    return set(plain.state_dict()) - set(plain._tied_weights_keys or {})


def _words(settings: Settings, texts: Sequence[str], device: str) -> tuple[list[str], bool]:
    """The weights' vocabulary, or one built from the texts; and whether it is the run's own.

    On meta the weights need not be there: counting and estimating must work without them.
    """
    if settings.weights is None:
        return words_of(texts), bool(texts)
    if device == "meta":
        found = files.words_without_weights(settings.weights, settings.text_config()["vocab_size"])
        return (found, True) if found else (words_of(texts), False)
    if found := files.words(settings.weights):
        return found, True
    raise WeightsError("the weights' folder has no vocab.txt or tokenizer.json: put the tokenizer there")


def _config(settings: Settings, tokens: Tokens, device: str) -> BlipConfig:
    vision, text = settings.vision_config(), settings.text_config()
    vision.pop("drop_path")
    text["vocab_size"] = text["vocab_size"] or len(tokens)
    if len(tokens) > text["vocab_size"]:
        raise WeightsError(f"the tokenizer has {len(tokens)} tokens, the model only vocab_size {text['vocab_size']}")
    if device != "meta" and settings.weights is not None and settings.weights.kind in ("hub", "folder", "bundled"):
        folder = files.folder_of(settings.weights)
        stored = json.loads((files.files(settings.weights)[1]).read_text(encoding="utf-8"))
        _agree(vision, stored["vision_config"], f"{folder}/config.json: vision_config")
        _agree(text, stored["text_config"], f"{folder}/config.json: text_config")
    text |= {
        "bos_token_id": tokens.dec,
        "eos_token_id": tokens.sep,
        "sep_token_id": tokens.sep,
        "pad_token_id": tokens.pad,
        "label_smoothing": settings.label_smoothing,
    }
    return BlipConfig(vision_config=vision, text_config=text, initializer_range=settings.initializer_range)


def _agree(ours: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Compare every field that shapes the model or the meaning of its weights; those not stored are not compared."""
    may_differ = {"image_size", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob"}
    for name in _FIXED_BY_WEIGHTS:
        if name in stored:
            ours[name] = stored[name]
    wrong = [
        f"{name} is {stored[name]} there, {value} in the spec"
        for name, value in ours.items()
        if name in stored and name not in may_differ and stored[name] != value
    ]
    if wrong:
        raise WeightsError(f"{where}: {'; '.join(wrong)}. Set these fields under `model` to the weights' values")


def _load(settings: Settings, module: BlipForQuestionAnswering) -> None:
    if settings.weights is None:
        return
    if settings.weights.kind == "dinov2_minilm":
        from bench.models.miss import dinov2_minilm

        dinov2_minilm.load(module)
        return
    path, folders = files.files(settings.weights)[0], getattr(settings.weights, "adapter", {})
    state, held = adapters.separate(weights.read(path))
    adapters.check_named(held, folders, str(path))
    weights.load(module, state, str(path))
    adapters.merge(module, folders, held)


def _add_drop_path(module: BlipForQuestionAnswering, last: float) -> None:
    """Stochastic depth on both residual branches of every ViT layer, as in the original code; the library has none."""
    if last == 0:
        return
    from timm.layers.drop import drop_path  # half a second

    layers: Any = module.vision_model.encoder.layers
    for layer, rate in zip(layers, np.linspace(0, last, len(layers)).tolist(), strict=True):
        if rate == 0:
            continue

        def drop(branch: torch.nn.Module, _args: Any, output: Any, rate: float = rate) -> Any:
            if isinstance(output, tuple):  # attention returns its probabilities, too
                return drop_path(output[0], rate, branch.training), *output[1:]
            return drop_path(output, rate, branch.training)

        layer.self_attn.register_forward_hook(drop)
        layer.mlp.register_forward_hook(drop)

"""OFA as a worker runs it: preprocessing, loss and generation around the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Resampling
from torch.nn import functional

from bench.errors import BenchError, WeightsError
from bench.models.common.files import CONFIG
from bench.models.common.images import stack_pixels
from bench.models.common.parts import add_unused, refuse_adapters
from bench.models.common.tokens import IGNORED, pad
from bench.models.common.vqa import Batch, VqaModel, meta_inputs, save_tensors
from bench.models.ofa import weights
from bench.models.ofa.network import Decoded, Decoder, Encoded, Network, Stack
from bench.models.ofa.search import Trie, beam_search
from bench.models.ofa.settings import PARTS, Settings, Sizes
from bench.models.ofa.tokens import EOS, PAD, OfaTokens, build_word_tokens, read
from bench.plugins.contracts import BenchModel, GenerateOptions, InputLengths

if TYPE_CHECKING:
    from PIL.Image import Image


class OfaModel(VqaModel):
    """A built OFA; see ``bench.plugins.contracts.TextModel``."""

    def __init__(
        self, settings: Settings, module: Network, sizes: Sizes, tokens: OfaTokens, *, has_vocabulary: bool
    ) -> None:
        limits = InputLengths(question_tokens=settings.question_max_tokens, answer_tokens=settings.answer_max_tokens)
        names = {part: part for part in PARTS}
        super().__init__(module, names, tokens, PARTS, max_lengths=limits, has_vocabulary=has_vocabulary)
        self.settings = settings
        self.sizes = sizes
        self._embedding = module.decoder.embedding
        self._trie: Trie | None = None

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in place of the part."""
        super().replace_part(name, adapted)
        if getattr(adapted, "word_embeddings", self) is None:  # peft looks for it inside the part
            adapted.__dict__["word_embeddings"] = self._embedding

    def learn_answers(self, answers: Iterable[str]) -> None:
        """Allow only these answers, with ``constrain: answers``."""
        if self.settings.constrain == "answers":
            self._trie = Trie.of(map(self.answer_ids, dict.fromkeys(answers)), self.sizes.vocab_size)

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:
        """``pixel_values`` (batch, 3, size, size) fp32; ``question_ids``, ``question_mask`` (batch, longest question)
        int64; with answers, ``decoder_ids``, ``decoder_mask`` and ``labels`` (batch, longest question with answer).
        """
        sources = [self.question_ids(text) for text in questions]
        ids, mask = pad(sources, PAD)
        pixels = (stack_pixels(images, self.sizes.image_size, Resampling.BICUBIC) / 127.5 - 1).contiguous()
        batch = {"pixel_values": pixels, "question_ids": ids, "question_mask": mask}
        if answers:  # the decoder reads question and answer, and learns the answer
            targets = [self.answer_ids(text) for text in answers]
            pairs = list(zip(sources, targets, strict=True))
            batch["decoder_ids"], batch["decoder_mask"] = pad([[*s[:-1], *t[:-1]] for s, t in pairs], PAD)
            batch["labels"], _ = pad([[IGNORED] * (len(s) - 2) + t for s, t in pairs], IGNORED)
            if self.settings.constrain_loss:
                batch |= self._constrained(sources, targets)
        return batch

    def _constrained(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
        """``answer_ids``, ``answer_places`` of their scores, ``answer_nodes`` of the trie before them: int64 (batch,
        longest answer)."""
        assert self._trie is not None, "learn_answers comes first"
        ids, _ = pad(targets, IGNORED)
        places = torch.tensor([len(source) - 2 for source in sources])[:, None] + torch.arange(ids.shape[1])
        longest = max(len(s) + len(t) for s, t in zip(sources, targets, strict=True)) - 3
        return {
            "answer_ids": ids,
            "answer_places": places.clamp(max=longest),
            "answer_nodes": self._trie.path(ids),
        }

    def loss(self, batch: Batch) -> torch.Tensor:
        """Label-smoothed cross-entropy, mean over all answer tokens; see ``constrained_loss``."""
        rows = self.sizes.vocab_size
        decoded: Decoded = self.part("decoder")(
            input_ids=batch["decoder_ids"], attention_mask=batch["decoder_mask"], encoded=self._encoded(batch)
        )
        logits = decoded.logits[:, -batch["labels"].shape[1] :]  # behind virtual tokens
        if self.settings.constrain_loss:
            assert self._trie is not None, "learn_answers comes first"
            loss = constrained_loss(logits, batch, self._trie, self.settings.label_smoothing)
        else:
            loss = functional.cross_entropy(
                logits.flatten(0, 1),
                batch["labels"].flatten(),
                ignore_index=IGNORED,
                # fairseq spreads the smoothing over the wrong tokens alone, torch over all.
                label_smoothing=self.settings.label_smoothing * rows / (rows - 1),
            )
        decoder = next(m for m in self.module.modules() if isinstance(m, Decoder))
        return add_unused(loss, decoder.image_parameters())

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Answers by beam search, known answers alone with ``constrain: answers``."""
        prompt, mask = batch["question_ids"][:, :-1], batch["question_mask"][:, 1:]  # without its end of sentence
        encoded = self._encoded(batch)
        decoder, part = self.bare_part("decoder"), self.part("decoder")
        state: Decoded = part(input_ids=prompt, attention_mask=mask, encoded=encoded)
        beams, steps = options.num_beams, options.max_new_tokens
        if state.allowed.shape[1] + steps > self.sizes.max_positions:
            raise BenchError(f"question and max_new_tokens exceed network.max_positions {self.sizes.max_positions}")
        last = mask.sum(1) - 1 + state.logits.shape[1] - mask.shape[1]
        first = state.logits[torch.arange(len(prompt), device=last.device), last]
        repeated = state.repeat(encoded, beams)

        def advance(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            state.select_rows(rows)
            logits: torch.Tensor = decoder.step(tokens[:, None], repeated, state).logits
            return logits[:, -1]

        ids = beam_search(first, advance, beams=beams, steps=steps, eos=EOS, pad=PAD, trie=self._trie)
        return [self.tokens.decode(row) for row in ids.cpu().tolist()]

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens, vocabulary) of answers by one forward pass, for ``bench.training.audit``."""
        lengths = (batch["question_mask"].sum(1) - 1).tolist()  # without the question's end of sentence
        prompts = [row[:length] for row, length in zip(batch["question_ids"], lengths, strict=True)]
        read = [[*prompt.tolist(), *answer[:-1].tolist()] for prompt, answer in zip(prompts, answers, strict=True)]
        ids, mask = (each.to(answers.device) for each in pad(read, PAD))
        logits = self.part("decoder")(input_ids=ids, attention_mask=mask, encoded=self._encoded(batch)).logits
        logits = logits[:, -ids.shape[1] :]  # behind virtual tokens
        rows = zip(logits, lengths, strict=True)
        return torch.stack([row[length - 1 :][: answers.shape[1]] for row, length in rows])

    def checkpoint_activations(self) -> None:
        """In every transformer layer."""
        # Not in the ResNet, whose batch norms would count a batch twice.
        for module in self.module.modules():
            if isinstance(module, Stack):
                module.checkpointing = True

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta, where the longest question has the longest answer."""
        tokens = dict.fromkeys(("question_ids", "question_mask"), lengths.question_tokens)
        if with_answers:
            both = lengths.question_tokens + lengths.answer_tokens - 2
            tokens |= dict.fromkeys(("decoder_ids", "decoder_mask", "labels"), both)
            if self.settings.constrain_loss:
                tokens |= dict.fromkeys(("answer_ids", "answer_places", "answer_nodes"), lengths.answer_tokens)
        return meta_inputs(batch_size, self.sizes.image_size, tokens)

    def facts(self) -> dict[str, int | str]:
        """Edge of the images in pixels, attention, rows of the token embedding, and the constraint on answers."""
        return {
            "image_size": self.sizes.image_size,
            "attention": self.settings.attention,
            "vocab_size": self.sizes.vocab_size,
            "constrain": self.settings.constrain,
        }

    def _encoded(self, batch: Batch) -> Encoded:
        encoded: Encoded = self.part("encoder")(
            input_ids=batch["question_ids"], attention_mask=batch["question_mask"], pixel_values=batch["pixel_values"]
        )
        return encoded


def constrained_loss(logits: torch.Tensor, batch: Batch, trie: Trie, smoothing: float) -> torch.Tensor:
    """Cross-entropy among the tokens that the trie allows, mean over the answer tokens; BiomedGPT's training loss.

    ``logits`` (batch, places, vocabulary) are those of ``batch["labels"]``. Smoothing is spread evenly over the other
    allowed tokens; the only allowed token costs nothing.
    """
    labels, places = batch["answer_ids"].flatten(), batch["answer_places"]
    rows = torch.arange(len(places), device=places.device)[:, None]
    allowed = trie.to(labels.device).allowed(batch["answer_nodes"].flatten())
    scores = logits[rows, places].flatten(0, 1).float().masked_fill(~allowed, -torch.inf).log_softmax(-1)
    scores = scores.masked_fill(~allowed, 0)
    right = scores.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    wrong = (scores.sum(1) - right) / (allowed.sum(1) - 1).clamp(min=1)
    counted = labels != IGNORED
    return -((1 - smoothing) * right + smoothing * wrong).where(counted, 0).sum() / counted.sum()


def build(settings: Settings, *, texts: Sequence[str], device: str) -> OfaModel:
    """Build with weights loaded. Raises WeightsError."""
    tokens, has_vocabulary = _tokens(settings, texts, device)
    sizes = settings.sizes()
    sizes = replace(sizes, vocab_size=tokens.embedding_rows(sizes.vocab_size))
    with torch.device("meta" if device == "meta" else "cpu"):
        module = Network(sizes, embedding=settings.embedding, initializer_range=settings.initializer_range, pad=PAD)
    model = OfaModel(settings, module, sizes, tokens, has_vocabulary=has_vocabulary)
    if device == "meta":
        model.learn_answers([""])  # whatever the answers, a search with a trie takes the same steps
        return model
    if settings.weights is not None:
        weights.load(module, weights.tensors(settings.weights))
    module.to(device)
    return model


def _tokens(settings: Settings, texts: Sequence[str], device: str) -> tuple[OfaTokens, bool]:
    """The weights' tokenizer, or that of the texts' words; and whether a run uses the same."""
    words = settings.question_max_words
    if settings.weights is None:
        return build_word_tokens(texts, words), bool(texts)
    try:
        return read(weights.tokenizer(settings.weights), words), True
    except WeightsError:
        if device != "meta":  # an estimate works without the weights
            raise
        return build_word_tokens(texts, words), False


def save(model: BenchModel, folder: Path) -> None:
    """Write tensors, sizes and tokenizer. Raises WeightsError for a model with adapters."""
    assert isinstance(model, OfaModel)
    refuse_adapters(model.module)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(weights.plain(model.module), folder / weights.TENSORS)
    (folder / CONFIG).write_text(json.dumps(asdict(model.sizes), indent=1) + "\n", encoding="utf-8")
    model.tokens.save(folder)

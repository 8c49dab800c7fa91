"""OFA as the worker sees it: parts, preprocessing, loss and generation around the network."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch.nn import functional

from bench.errors import BenchError, WeightsError
from bench.models.ofa import PARTS, files, weights
from bench.models.ofa import tokens as _ofa_tokens
from bench.models.ofa.network import Decoded, Decoder, Encoded, Network
from bench.models.ofa.search import Ends, Trie, beam_search
from bench.models.ofa.stack import Sizes, Stack
from bench.models.ofa.tokens import EOS, PAD, Tokens
from bench.plugins.contracts import BenchModel, CutTexts, GenerateOptions, InputLengths, PartFacts

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.models.ofa import Settings

Batch = dict[str, torch.Tensor]
_IGNORED = -100


class OfaModel:
    """A built OFA; see ``bench.plugins.contracts.BenchModel``."""

    def __init__(self, settings: Settings, module: Network, sizes: Sizes, tokens: Tokens, *, has_vocabulary: bool):
        self.settings = settings
        self.module: Any = module
        self.sizes = sizes
        self.tokens = tokens
        self.has_vocabulary = has_vocabulary
        self.part_facts: Mapping[str, PartFacts] = PARTS
        self._embedding = module.decoder._embedding[0]
        self._trie: Trie | None = None

    def part(self, name: str) -> torch.nn.Module:
        """The part's module, adapted or not."""
        part: torch.nn.Module = getattr(self.module, name)
        return part

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        """Put the adapted (peft) module in the place of the part."""
        setattr(self.module, name, adapted)
        if getattr(adapted, "word_embeddings", self) is None:  # peft finds it only inside the part
            adapted.__dict__["word_embeddings"] = self._embedding

    def learn_answers(self, answers: Iterable[str]) -> None:
        """Allow these answers alone, if the settings say so."""
        if self.settings.constrain == "answers":
            self._trie = Trie.of(map(self._answer, dict.fromkeys(answers)), self.sizes.vocab_size)

    def collate(self, images: Sequence[Image], questions: Sequence[str], answers: Sequence[str]) -> Batch:
        """``pixel_values`` (batch, 3, size, size) fp32; ``question_ids``, ``question_mask`` (batch, longest question)
        int64; with answers, ``decoder_ids``, ``decoder_mask`` and ``labels`` (batch, longest question and answer): the
        decoder reads question and answer, and is asked for the answer. All on the CPU.
        """
        sources = [self._question(text) for text in questions]
        ids, mask = _padded(sources)
        batch = {"pixel_values": self._pixels(images), "question_ids": ids, "question_mask": mask}
        if answers:
            targets = [self._answer(text) for text in answers]
            read = [[*source[:-1], *target[:-1]] for source, target in zip(sources, targets, strict=True)]
            batch["decoder_ids"], batch["decoder_mask"] = _padded(read)
            asked = [[_IGNORED] * (len(s) - 2) + target for s, target in zip(sources, targets, strict=True)]
            batch["labels"], _ = _padded(asked, _IGNORED)
            if self.settings.constrain_loss:
                batch |= self._constrained(sources, targets)
        return batch

    def _constrained(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
        """``answer_ids`` (batch, longest answer), ``answer_places`` of their scores behind the question, and
        ``answer_nodes`` of the trie that they start from; int64."""
        assert self._trie is not None, "learn_answers comes first"
        ids, _ = _padded(targets, _IGNORED)
        places = torch.tensor([len(source) - 2 for source in sources])[:, None] + torch.arange(ids.shape[1])
        longest = max(len(s) + len(t) for s, t in zip(sources, targets, strict=True)) - 3
        nodes = self._trie.path(ids)
        return {"answer_ids": ids, "answer_places": places.clamp(max=longest), "answer_nodes": nodes}

    def loss(self, batch: Batch) -> torch.Tensor:
        """Label-smoothed cross-entropy, mean over all answer tokens; with ``constrain_loss`` among the tokens that the
        trie allows.

        fairseq spreads the smoothing over the wrong tokens alone, torch over all: hence a little more of it here.
        """
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
                ignore_index=_IGNORED,
                label_smoothing=self.settings.label_smoothing * rows / (rows - 1),
            )
        decoder = next(m for m in self.module.modules() if isinstance(m, Decoder))
        return sum((0.0 * idle.sum() for idle in decoder.idle()), loss)

    @torch.no_grad()
    def generate(self, batch: Batch, options: GenerateOptions) -> list[str]:
        """Beam search behind the question, within the trie of the known answers if the settings say so."""
        prompt, mask = batch["question_ids"][:, :-1], batch["question_mask"][:, 1:]  # without its end of sentence
        encoded = self._encoded(batch)
        part: Any = self.part("decoder")
        decoder = part.get_base_model() if hasattr(part, "get_base_model") else part
        state: Decoded = part(input_ids=prompt, attention_mask=mask, encoded=encoded)
        if state.allowed.shape[1] + options.max_new_tokens > self.sizes.max_positions:
            raise BenchError(f"question and max_new_tokens exceed network.max_positions {self.sizes.max_positions}")
        last = mask.sum(1) - 1 + state.logits.shape[1] - mask.shape[1]
        first = state.logits[torch.arange(len(prompt), device=last.device), last]
        state, repeated = self._for_beams(state, encoded, options.num_beams)

        def advance(rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            state.rows(rows)
            logits: torch.Tensor = decoder.step(tokens[:, None], repeated, state).logits
            return logits[:, -1]

        ends = Ends(eos=EOS, pad=PAD)
        beams, steps = options.num_beams, options.max_new_tokens
        ids = beam_search(first, advance, beams=beams, steps=steps, ends=ends, trie=self._trie)
        return [self.tokens.decode(row) for row in ids.cpu().tolist()]

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        return frozenset({EOS})

    def forward_scores(self, batch: Batch, answers: torch.Tensor) -> torch.Tensor:
        """As ``bench.training.audit_evaluation`` asks for them."""
        lengths = (batch["question_mask"].sum(1) - 1).tolist()  # without the question's end of sentence
        prompts = [row[:length] for row, length in zip(batch["question_ids"], lengths, strict=True)]
        read = [[*prompt.tolist(), *answer[:-1].tolist()] for prompt, answer in zip(prompts, answers, strict=True)]
        ids, mask = (each.to(answers.device) for each in _padded(read))
        logits = self.part("decoder")(input_ids=ids, attention_mask=mask, encoded=self._encoded(batch)).logits
        logits = logits[:, -ids.shape[1] :]  # behind virtual tokens
        own = [row[length - 1 :][: answers.shape[1]] for row, length in zip(logits, lengths, strict=True)]
        return torch.stack(own)

    def checkpoint_activations(self) -> None:
        """In every transformer layer. Not in the ResNet: its batch norms would count a batch twice."""
        for module in self.module.modules():
            if isinstance(module, Stack):
                module.checkpointing = True

    def lengths(self, questions: Sequence[str], answers: Sequence[str]) -> InputLengths:
        """Longest question and longest answer; the decoder reads both, of one example, so at most both together."""
        return InputLengths(
            question_tokens=max(len(self._question(text)) for text in dict.fromkeys(questions)),
            answer_tokens=max(len(self._answer(text)) for text in dict.fromkeys(answers)),
        )

    def cut_texts(self, questions: Sequence[str], answers: Sequence[str]) -> CutTexts:
        """How many are longer than ``question_max_words`` or the tokens that the settings allow."""
        most = sys.maxsize
        return CutTexts(
            questions=sum(
                self._question(text) != self.tokens.question(text, max_words=most, max_tokens=most)
                for text in questions
            ),
            answers=sum(self._answer(text) != self.tokens.answer(text, max_tokens=most) for text in answers),
        )

    def max_lengths(self) -> InputLengths:
        """``question_max_tokens`` and ``answer_max_tokens``."""
        return InputLengths(
            question_tokens=self.settings.question_max_tokens, answer_tokens=self.settings.answer_max_tokens
        )

    def meta_inputs(self, batch_size: int, lengths: InputLengths, *, with_answers: bool) -> Batch:
        """As ``collate``, on meta, where the longest question has the longest answer."""
        size = self.sizes.image_size
        batch = {"pixel_values": torch.empty(batch_size, 3, size, size, device="meta")}
        both = lengths.question_tokens + lengths.answer_tokens - 2
        names = {"question_ids": lengths.question_tokens, "question_mask": lengths.question_tokens}
        if with_answers:
            names |= {"decoder_ids": both, "decoder_mask": both, "labels": both}
            if self.settings.constrain_loss:
                names |= dict.fromkeys(("answer_ids", "answer_places", "answer_nodes"), lengths.answer_tokens)
        for name, tokens in names.items():
            batch[name] = torch.empty(batch_size, tokens, dtype=torch.long, device="meta")
        return batch

    def facts(self) -> dict[str, int | str]:
        """Edge of the images in pixels, attention, rows of the token embedding, and what bounds an answer."""
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

    @staticmethod
    def _for_beams(state: Decoded, encoded: Encoded, beams: int) -> tuple[Decoded, Encoded]:
        """All that the search keeps, once per beam; scores are no longer needed."""
        index = torch.arange(len(state.allowed), device=state.allowed.device).repeat_interleave(beams)
        state.logits = state.logits[:0]
        state.rows(index)
        state.cross = [type(layer)(*(x.index_select(0, index) for x in layer)) for layer in state.cross]
        return state, encoded.repeated(beams)

    def _question(self, text: str) -> list[int]:
        words, tokens = self.settings.question_max_words, self.settings.question_max_tokens
        return self.tokens.question(text, max_words=words, max_tokens=tokens)

    def _answer(self, text: str) -> list[int]:
        return self.tokens.answer(text, max_tokens=self.settings.answer_max_tokens)

    def _pixels(self, images: Sequence[Image]) -> torch.Tensor:
        edge = (self.sizes.image_size, self.sizes.image_size)
        rows = [np.asarray(i.convert("RGB").resize(edge, Resampling.BICUBIC), dtype=np.float32) for i in images]
        return (torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2) / 127.5 - 1).contiguous()


def constrained_loss(logits: torch.Tensor, batch: Batch, trie: Trie, smoothing: float) -> torch.Tensor:
    """Cross-entropy among the tokens that the trie allows at each place of an answer, mean over the answer tokens.

    ``logits`` (batch, places, vocabulary) are those of ``batch["labels"]``. The smoothing is spread evenly over the
    other allowed tokens; a token that has no other costs nothing. Follows BiomedGPT's training loss.
    """
    labels, places = batch["answer_ids"].flatten(), batch["answer_places"]
    rows = torch.arange(len(places), device=places.device)[:, None]
    allowed = trie.to(labels.device).allowed(batch["answer_nodes"].flatten())
    scores = logits[rows, places].flatten(0, 1).float().masked_fill(~allowed, -torch.inf).log_softmax(-1)
    scores = scores.masked_fill(~allowed, 0)
    right = scores.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    wrong = (scores.sum(1) - right) / (allowed.sum(1) - 1).clamp(min=1)
    asked = labels != _IGNORED
    return -((1 - smoothing) * right + smoothing * wrong).where(asked, 0).sum() / asked.sum()


def _padded(rows: Sequence[Sequence[int]], filler: int = PAD) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded at the end, and the mask of what is not padding, both int64 of shape (batch, longest)."""
    ids = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def build(settings: Settings, *, texts: Sequence[str], device: str) -> OfaModel:
    """See ``bench.models.ofa.build``."""
    tokens, own = _tokens(settings, texts, device)
    sizes = settings.sizes()
    sizes["vocab_size"] = sizes["vocab_size"] or tokens.size
    if tokens.size > sizes["vocab_size"]:
        raise WeightsError(f"the tokenizer has {tokens.size} tokens, the model only vocab_size {sizes['vocab_size']}")
    resolved = Sizes(**sizes, fused=settings.attention == "sdpa")
    with torch.device("meta" if device == "meta" else "cpu"):
        module = Network(resolved, embedding=settings.embedding, initializer_range=settings.initializer_range, pad=PAD)
    model = OfaModel(settings, module, resolved, tokens, has_vocabulary=own)
    if device == "meta":
        model.learn_answers([""])  # whatever the answers, a search with a trie takes the same steps
    else:
        if settings.weights is not None:
            path = files.tensors(settings.weights)
            weights.load(module, weights.read(path), str(path))
        module.to(device)
    return model


def _tokens(settings: Settings, texts: Sequence[str], device: str) -> tuple[Tokens, bool]:
    """The weights' tokenizer, or one of the texts' words; and whether it is the run's own.

    On meta the weights need not be there: counting and estimating must work without them.
    """
    if settings.weights is None:
        return _ofa_tokens.words_of(texts), bool(texts)
    try:
        return _ofa_tokens.read(files.tokenizer(settings.weights)), True
    except WeightsError:
        if device != "meta":
            raise
        return _ofa_tokens.words_of(texts), False


def save(model: BenchModel, folder: Path) -> None:
    """See ``bench.models.ofa.save``. Raises WeightsError for a model with adapters, which has no plain layout."""
    from safetensors.torch import save_file

    assert isinstance(model, OfaModel)
    with torch.device("meta"):
        bare = Network(model.sizes, embedding="frozen", initializer_range=1, pad=PAD)
    state = weights.plain(model.module)
    if state.keys() != weights.plain(bare).keys():
        raise WeightsError("a model with adapters cannot be saved as a whole; train its parts (T) or save the adapter")
    folder.mkdir(parents=True, exist_ok=True)
    floats = {n: t.detach().float() if t.is_floating_point() else t for n, t in state.items()}
    save_file({n: t.cpu().contiguous() for n, t in floats.items()}, folder / files.TENSORS)
    (folder / files.CONFIG).write_text(json.dumps(model.settings.sizes(), indent=1) + "\n", encoding="utf-8")
    model.tokens.save(folder)

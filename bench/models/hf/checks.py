"""Assumptions of a task about a transformers model, tested on the built model before training.

Two forward passes agree; the other texts of a batch change nothing; a model that writes never sees the token to
predict, uses the text in front of it and can end a text; a classifier uses the first and the last word. A model that
breaks one of these would train and print numbers all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from PIL import Image as Pillow

from bench.errors import SpecError
from bench.models.hf.images import ImageClassifier
from bench.models.hf.model import Batch, HfModel
from bench.models.hf.text import GenerativeModel, SequenceClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

# Type of device -> share of the range of the logits: above the effect of another order of summation (4e-7 in fp32, 1e-3
# in TF32), below that of a token (1e-3 in an untrained model of two layers).
_TOLERANCE = {"cpu": 2e-4, "cuda": 5e-3}
# Numbers of words: of three texts, and of the answer.
_SHORT, _MIDDLE, _LONG, _ANSWER = 2, 5, 9, 2
_WORDS = _MIDDLE + _LONG + _ANSWER + 1
_BLUE, _RED = (90, 120, 150), (220, 40, 10)


def _texts(model: SequenceClassifier | GenerativeModel) -> dict[str, str]:
    """Three texts, variants of the longest, and two answers, of known words; empty for a small vocabulary."""
    words = _known_words(model.tokens)
    if len(words) < _WORDS:
        return {}
    long, answer, spare = words[_MIDDLE : _MIDDLE + _LONG], words[_MIDDLE + _LONG : -1], words[-1]
    rows = {"short": words[:_SHORT], "middle": words[:_MIDDLE], "long": long, "answer": answer}
    rows |= {
        "other_first": [spare, *long[1:]],
        "other_last": [*long[:-1], spare],
        "other_answer": [*answer[:-1], spare],
    }
    return {name: " ".join(row) for name, row in rows.items()}


def check_sequence_classifier(model: SequenceClassifier) -> None:
    """Check a model that chooses a label for a text. Raises SpecError with the reason."""
    texts = _texts(model)
    if not texts:
        return
    batch = [texts["short"], texts["middle"], texts["long"]]
    with _probing(model):
        together = _scores(model, batch)
        _check_same(model, together, _scores(model, batch), "two forward passes of the same texts differ")
        alone = torch.cat([_scores(model, [text]) for text in batch])
        _check_same(
            model, together, alone, "its label of a text depends on the padding that the others of a batch bring"
        )
        for place in ("first", "last"):
            text = texts[f"other_{place}"]
            if _differ(model, texts["long"], text) and torch.equal(_scores(model, [text]), alone[-1:]):
                _refuse(model, f"its label does not depend on the {place} word of a text")


def check_image_classifier(model: ImageClassifier) -> None:
    """Check a model that chooses a label for an image. Raises SpecError with the reason."""
    images = [_image(_BLUE), _image(_RED)]
    with _probing(model):
        together = _scores(model, [], images)
        _check_same(model, together, _scores(model, [], images), "two forward passes of the same images differ")
        alone = torch.cat([_scores(model, [], [image]) for image in images])
        _check_same(model, together, alone, "its label of an image depends on the others of a batch")


def check_generative_model(model: GenerativeModel) -> None:
    """Check a model that writes an answer. Raises SpecError with the reason."""
    _check_vocabulary(model)
    texts = _texts(model)
    if not texts:
        return
    questions = [texts["short"], texts["middle"], texts["long"]]
    answers = [texts["answer"]] * len(questions)
    with _probing(model):
        together = _predictions(model, questions, answers)
        if not together:
            return
        for row, again in zip(together, _predictions(model, questions, answers), strict=True):
            _check_same(model, row, again, "two forward passes of the same texts differ")
        _check_causality(model, questions, texts, together)
        for row, question in zip(together, questions, strict=True):
            (alone,) = _predictions(model, [question], answers[:1])
            _check_same(model, row, alone, "an answer depends on the padding that the other texts of its batch bring")
        _check_inputs_used(model, texts, together[-1])
        if not model.base.config.is_encoder_decoder and _padding_matters(model, questions):
            if "image" in model.built.task.inputs:
                _refuse(
                    model, "an answer depends on the padding in front of its question, which longer questions bring"
                )
            model.pads_prompts = False  # such as RWKV: it writes on prompts of one length at a time


def _check_vocabulary(model: GenerativeModel) -> None:
    """Check that the model can write every token of its tokenizer, the end of a text among them."""
    if model.tokens.end is None:
        _refuse(
            model,
            "its tokenizer has no token that ends a text, so that no answer would end",
            "set model.tokenizer to one with an eos_token",
        )
    weight = getattr(model.base.get_output_embeddings(), "weight", None)
    if isinstance(weight, torch.Tensor) and len(weight) < len(model.tokens):
        _refuse(
            model,
            f"it writes {len(weight)} different tokens, but its tokenizer makes {len(model.tokens)} (a vocabulary of "
            "its own for what it writes is not supported)",
        )


def _check_causality(
    model: GenerativeModel, questions: list[str], texts: dict[str, str], together: Sequence[torch.Tensor]
) -> None:
    """Check that predictions for two answers agree up to their first different token, and differ behind it."""
    both = (_batch(model, [texts["long"]], [texts[name]])["labels"][0] for name in ("answer", "other_answer"))
    old, new = (labels[labels.ge(0)].tolist() for labels in both)
    until = 1 + next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
    changed = _predictions(model, questions, [texts["other_answer"]] * len(questions))
    for row, now in zip(together, changed, strict=True):
        _check_same(model, row[:until], now[:until], "it sees the token that it is to predict (it is not causal)")
        if until < min(len(row), len(now)) and torch.equal(row[until], now[until]):
            _refuse(model, "its next token does not depend on the one before")


def _check_inputs_used(model: GenerativeModel, texts: dict[str, str], row: torch.Tensor) -> None:
    """Check that an answer depends on the question's first word, and on the image."""
    if _differ(model, texts["long"], texts["other_first"]):
        (other,) = _predictions(model, [texts["other_first"]], [texts["answer"]])
        if torch.equal(other, row):
            _refuse(model, "its answer does not depend on the first word of a question")
    if "image" in model.built.task.inputs:
        (alone,) = _predictions(model, [texts["long"]], [texts["answer"]])
        (other,) = _predictions(model, [texts["long"]], [texts["answer"]], _RED)
        if torch.equal(other, alone):
            _refuse(model, "its answer does not depend on the image")


def _padding_matters(model: GenerativeModel, questions: list[str]) -> bool:
    """Whether the first token of an answer depends on the padding in front of its question, as in generation."""
    together = _logits(model, _batch(model, questions, []))
    for row, question in zip(() if together is None else together, questions, strict=False):
        alone = _logits(model, _batch(model, [question], []))
        if alone is not None and _difference(row[-1], alone[0, -1]) > _tolerance(model):
            return True
    return False


def _predictions(
    model: GenerativeModel, questions: list[str], answers: list[str], color: Any = _BLUE
) -> list[torch.Tensor]:
    """Per row the logits (tokens, vocabulary) that predict its answer and end; empty for a model without logits."""
    batch = _batch(model, questions, answers, color)
    logits, labels = _logits(model, batch), batch["labels"]
    if logits is None or logits.shape[:2] != labels.shape:
        return []
    ahead = 0 if model.base.config.is_encoder_decoder else 1
    return [logits[i, labels[i].ge(0).nonzero()[:, 0] - ahead] for i in range(len(labels))]


def _differ(model: Any, one: str, other: str) -> bool:
    """Whether two texts have different tokens; cut texts and unknown words may have the same."""
    return not torch.equal(*(_batch(model, [text], [])["input_ids"] for text in (one, other)))


def _batch(model: Any, texts: Sequence[str], answers: Sequence[str], color: Any = _BLUE) -> Batch:
    images = [_image(color) for _ in texts] if "image" in model.built.task.inputs else []
    return {name: tensor.to(_device(model)) for name, tensor in model.collate(images, texts, answers).items()}


def _device(model: HfModel) -> torch.device:
    device: torch.device = next(model.base.parameters()).device
    return device


def _logits(model: HfModel, batch: Batch) -> torch.Tensor | None:
    logits = getattr(model.model(**batch), "logits", None)
    return logits.float() if isinstance(logits, torch.Tensor) else None


def _scores(model: Any, texts: Sequence[str], images: Sequence[Image] = ()) -> torch.Tensor:
    batch = model.collate(images, texts, [])
    scores: torch.Tensor = model.logits({name: tensor.to(_device(model)) for name, tensor in batch.items()})
    return scores.float()


def _image(color: Any) -> Image:
    return Pillow.new("RGB", (64, 64), color)


def _known_words(tokens: Any) -> list[str]:
    """``_WORDS`` words from all over the vocabulary, or fewer."""
    special = set(tokens.tokenizer.all_special_ids)
    known = sorted(row for row in tokens.tokenizer.get_vocab().values() if row not in special)
    step = max(1, len(known) // (8 * _WORDS))
    words: dict[str, None] = {}
    for row in chain(known[::step], known):
        word = str(tokens.tokenizer.decode([row])).strip()
        if word.isalnum() and tokens.encode(word, special=False):
            words[word] = None
        if len(words) == _WORDS:
            break
    return list(words)


@contextmanager
def _probing(model: HfModel) -> Iterator[None]:
    """Evaluate without gradients, and restore random numbers and recorded memory peaks.

    Raises SpecError with the library's reason if the model refuses the inputs.
    """
    device, training, attention = _device(model), model.module.training, model.settings.attention
    is_cuda = device.type == "cuda"
    before = torch.cuda.max_memory_allocated(device) if is_cuda else 0
    has_kernel = attention not in (None, "eager", "sdpa")
    model.module.eval()
    try:
        if has_kernel:  # these kernels refuse the weights' fp32, or compile for each shape
            model.base.set_attn_implementation("eager")
        with torch.random.fork_rng([device] if is_cuda else []), torch.no_grad():
            yield
    except torch.OutOfMemoryError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        inputs = " and ".join(f"{kind}s" for kind in model.built.task.inputs)
        _refuse(model, f"it fails on {inputs} alone: {type(error).__name__}: {reason}")
    finally:
        if has_kernel:
            model.base.set_attn_implementation(attention)
        model.module.train(training)
        if is_cuda:
            getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()
            torch.cuda.empty_cache()
            if torch.cuda.memory_allocated(device) >= before:  # else an earlier peak would be lost
                torch.cuda.reset_peak_memory_stats(device)


def _tolerance(model: HfModel) -> float:
    return _TOLERANCE.get(_device(model).type, _TOLERANCE["cuda"])


def _check_same(model: HfModel, one: torch.Tensor, other: torch.Tensor, problem: str) -> None:
    if (difference := _difference(one, other)) > _tolerance(model):
        _refuse(model, f"{problem} (logits by {difference:.2g} of their range)")


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference as a share of the range of ``one``, over entries that are finite in both."""
    if one.numel() == 0 or torch.equal(one, other):
        return 0.0
    finite = one.isfinite() & other.isfinite()
    if not torch.equal(one.isfinite(), other.isfinite()) or not finite.any():
        return float("inf")
    spread = float(one[finite].max() - one[finite].min())
    return float((one[finite] - other[finite]).abs().max()) / max(spread, 1e-12)


def _refuse(model: HfModel, problem: str, remedy: str = "choose another model") -> NoReturn:
    raise SpecError(
        f"{type(model.base).__name__} cannot do task {model.built.task.name!r} as it is: {problem}; {remedy}"
    )

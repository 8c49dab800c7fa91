"""Does evaluation see what was trained, and does generation agree with the forward pass that was trained?

Two libraries that do not fit together can train well and answer as if untrained: peft 0.21 with transformers 5.24 put
a prefix where ``generate`` never looked. A cell that answers no must fail, not print a number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from bench.errors import AuditError
from bench.plugins.contracts import BenchModel, GenerateOptions, Task
from bench.training.adapt import FROZEN, AppliedMethod
from bench.training.data import Batch
from bench.training.device import Precision
from bench.training.failure import memory_error
from bench.training.observe import Observer, differ, disturbed

EXAMPLES = 2
"""Of the test examples; the cost of an audit is that of a few tokens for each."""
_TOKENS = 4
_STRENGTHS = (1.0, 1e3, 1e6)
"""Of the noise. The first changes any score; what it does not change may be scaled down by the method (FourierFT), or
lie below the rounding of bf16."""
_MOST_ELEMENTS = 4_000_000
"""Of a part that are changed at a time, so that no copy of a whole model is needed."""
_OF_TOKENS = "trainable_tokens_delta"
"""peft's name for rows of an embedding that are trained by themselves."""
_KINDS = ("prompt_encoder", "modules_to_save", _OF_TOKENS)
"""peft's names for tensors that are seen in a way of their own, whatever else the method trains."""
_UNJUDGED = "not checked whether evaluation sees what was trained"
_ALL_NAN = f"{_UNJUDGED}: the scores of an example are all NaN"
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 1e-1}
"""Largest difference of two scores of a token by the two ways of computing, in units of the largest score."""


@runtime_checkable
class Audited(Protocol):
    """A ``TextModel`` whose generation can be compared with its forward pass; without these it is not."""

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        ...

    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]: ...

    def forward_scores(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens, vocabulary) by which each of these tokens (rows, tokens; ids, none of them padding) is
        predicted behind inputs that are ready to predict, in one forward pass without a cache, as in training."""
        ...


def check_evaluation(
    model: BenchModel,
    task: Task,
    batch: Batch,
    options: GenerateOptions,
    precision: Precision,
    parts: Mapping[str, str],
    adapters: Mapping[str, AppliedMethod],
) -> list[str]:
    """On a batch of ``EXAMPLES`` test examples, through the calls of an evaluation. Leaves weights, modes and random
    numbers as they were, bit for bit.

    Returns why something was not judged, for the reader of the scores: memory did not suffice, or all scores are NaN.
    Raises AuditError that names the part, or the step, and the libraries.
    """
    unjudged: list[str] = []
    few = replace(options, max_new_tokens=min(_TOKENS, options.max_new_tokens))
    training = [module for module in model.module.modules() if module.training]
    try:
        with _random_numbers_kept(precision.device), torch.no_grad():
            model.module.eval()
            tensors = precision.to_device(batch.tensors)
            unjudged += _check_effect(model, task, tensors, few, precision, parts, adapters)
            if isinstance(model, Audited):
                with precision.context():
                    unjudged += _check_generation(model, tensors, few, precision)
    except Exception as error:
        if isinstance(error, AuditError) or memory_error(error) is None:
            raise
        print(f"no audit of the evaluation, for want of memory: {error}")
        unjudged.append(f"{_UNJUDGED}, for want of memory")
    finally:
        for module in training:
            module.training = True
    return list(dict.fromkeys(unjudged))


def _check_effect(
    model: BenchModel,
    task: Task,
    batch: dict[str, torch.Tensor],
    options: GenerateOptions,
    precision: Precision,
    parts: Mapping[str, str],
    adapters: Mapping[str, AppliedMethod],
) -> list[str]:
    """Returns why not all parts were judged."""

    def scores() -> list[torch.Tensor]:
        with precision.context(), Observer() as observer:  # each time anew: autocast keeps the weights that it has cast
            task.predict(model, dict(batch), options)
        return observer.scores

    before: list[torch.Tensor] | None = None
    for part, action in parts.items():
        for kind, tensors in _trained(model, part, action, adapters).items():
            before = scores() if before is None else before
            if not all(bool(each.isfinite().any()) for each in before):
                return [_ALL_NAN]
            if not _has_effect(scores, before, tensors) and not _may_be_idle(kind, adapters.get(part)):
                raise AuditError(
                    f"part {part} ({action}): evaluation does not see what was trained. Noise on its {kind} changed no "
                    f"score of {len(next(iter(batch.values())))} test examples: {_libraries()} do not fit together "
                    "here. Install versions that this package was tested with (python run_bench.py --version), or "
                    "choose another method for this part"
                )
    return []


def _has_effect(scores: Any, before: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> bool:
    for strength in _STRENGTHS:
        with disturbed(tensors, strength):
            try:
                after = scores()
            except (ArithmeticError, RuntimeError, ValueError) as error:
                if memory_error(error) is not None:
                    raise
                return True  # it does see them, and cannot compute with noise
        if differ(before, after):
            return True
    return False


def _trained(
    model: BenchModel, part: str, action: str, adapters: Mapping[str, AppliedMethod]
) -> dict[str, list[torch.nn.Parameter]]:
    """What they are called -> tensors of the part that were trained, or of many an even choice."""
    if action == FROZEN:
        return {}
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.part(part).named_parameters():
        if parameter.requires_grad:
            kind = next((k for k in _KINDS if k in name), "trained tensors")
            found.setdefault(kind if part in adapters else "trained tensors", []).append(parameter)
    return {kind: _some(parameters) for kind, parameters in found.items()}


def _some(parameters: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """From the whole length of the list, at most ``_MOST_ELEMENTS`` elements, but at least one tensor."""
    total = sum(p.numel() for p in parameters)
    every = -(-total // _MOST_ELEMENTS)
    chosen = parameters[:: max(1, every)] if every > 1 else parameters
    small = [p for p in chosen if p.numel() <= _MOST_ELEMENTS]
    return small or [min(parameters, key=lambda p: p.numel())]


def _may_be_idle(kind: str, adapter: AppliedMethod | None) -> bool:
    """Whether these tensors have an effect only on texts with tokens that the examples of an audit need not have."""
    config = adapter.peft.active_peft_config if adapter is not None and adapter.peft is not None else None
    return kind == _OF_TOKENS or bool(getattr(config, "alora_invocation_tokens", None))


def _check_generation(
    model: Audited, batch: dict[str, torch.Tensor], options: GenerateOptions, precision: Precision
) -> list[str]:
    """Greedy generation against one forward pass over prompt and answer, without a cache, as in training.

    Returns why it was not judged.
    """
    greedy = replace(options, num_beams=1, attend_padding=False)  # training never attends to padding
    with Observer() as observer:
        model.generate(dict(batch), greedy)
    rows = len(next(iter(batch.values())))
    steps = [each for each in observer.decisions if each.dim() == 2 and len(each) == rows]
    steps = [each for each in steps if each.shape[1] == steps[0].shape[1]][: greedy.max_new_tokens]
    if not steps:
        raise AuditError(f"greedy generation showed no scores to compare with the forward pass ({_libraries()})")
    tokens = torch.stack([step.argmax(dim=-1) for step in steps], dim=1)
    forward = model.forward_scores(dict(batch), tokens)
    tolerance = _TOLERANCE[precision.compute or precision.weights]
    going = torch.ones(rows, dtype=torch.bool, device=tokens.device)
    for number, step in enumerate(steps):
        if bool((step.isnan() & forward[:, number].isnan()).all(-1)[going].any()):
            return [_ALL_NAN]
        error = _disagreement(step, forward[:, number])
        if bool((error[going] > tolerance).any()):
            raise AuditError(
                f"greedy generation and the forward pass differ at token {number + 1} of an answer: by "
                f"{float(error[going].max()):.3g} of the largest score, {tolerance:g} is rounding. {_libraries()} do "
                "not fit together here: what is trained is not what answers. Install versions that this package was "
                "tested with (python run_bench.py --version), or choose another method"
            )
        going &= ~torch.isin(tokens[:, number], torch.tensor(sorted(model.ends), device=tokens.device))
    return []


def _disagreement(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(rows,): the largest difference of two sets of scores (rows, vocabulary) up to a constant of each row, which
    log-probabilities differ by, in units of the largest score. Tokens that generation rules out, by -inf, are not
    compared; what is NaN or inf to one of the two alone is an infinite difference.
    """
    allowed = one.isfinite() & other.isfinite()
    broken = (one.isfinite() != other.isfinite()) & ~one.isneginf() & ~other.isneginf()
    count = allowed.sum(-1, keepdim=True).clamp(min=1)

    def centred(scores: torch.Tensor) -> torch.Tensor:
        known = scores.float().masked_fill(~allowed, 0)
        return (known - known.sum(-1, keepdim=True) / count).masked_fill(~allowed, 0)

    first, second = centred(one), centred(other)
    largest = torch.maximum(first.abs().amax(-1), second.abs().amax(-1)).clamp(min=1e-6)
    return ((first - second).abs().amax(-1) / largest).masked_fill(broken.any(-1), torch.inf)


def _libraries() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(["cuda"] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

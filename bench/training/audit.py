"""Checks that a cell trains what its freeze pattern says, and that its evaluation sees what was trained.

With libraries that do not fit together, a model can train well and answer as if untrained: peft 0.21 with transformers
5.24 put a prefix where ``generate`` never looked. Such a cell must fail and not print a number.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.nn.modules import module as _hooks
from torch.overrides import TorchFunctionMode

from bench.errors import AuditError
from bench.plugins.contracts import BenchModel, GenerateOptions
from bench.training.adapt import FROZEN, TRAINED, AppliedMethod, Run
from bench.training.data import Batch
from bench.training.device import Precision
from bench.training.failure import memory_error

EXAMPLES = 2
"""Test examples for the audit of the evaluation, which generates a few tokens for each."""
_TOKENS = 4
_SHOWN = 5
# Strengths of the noise. The first changes any score, unless the method scales it down (FourierFT) or it lies below the
# rounding of bf16.
_STRENGTHS = (1.0, 1e3, 1e6)
_LEAST_SPREAD = 0.02  # noise on tensors whose elements are all equal, such as those that start at 0 or 1
_MAX_ELEMENTS = 4_000_000  # changed at a time in a part, so that no copy of a whole model is needed
_TOKENS_DELTA = "trainable_tokens_delta"  # peft's name for trained rows of an embedding
# peft's names for tensors that reach the evaluation in their own way, whatever else the method trains.
_KINDS = ("prompt_encoder", "modules_to_save", _TOKENS_DELTA)
_UNJUDGED = "not checked whether evaluation sees what was trained"
_ALL_NAN = f"{_UNJUDGED}: the scores of an example are all NaN"
# Largest difference between the scores of generation and of the forward pass, in units of the largest score.
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 1e-1}
_DECIDING = {"argmax", "topk", "max", "sort"}  # functions that choose a class or a token by its score


def check_frozen(model: BenchModel, parts: Mapping[str, str], adapters: Mapping[str, AppliedMethod]) -> None:
    """Raise AuditError if ``F`` trains a tensor of its part, ``T`` not all of them, or a method others than its own."""
    in_parts: set[int] = set()
    for part, action in parts.items():
        named = dict(model.part(part).named_parameters())
        in_parts |= {id(p) for p in named.values()}
        trained = {name for name, p in named.items() if p.requires_grad}
        applied = adapters.get(part)
        expected = named.keys() if action == TRAINED else applied.names if applied is not None else frozenset()
        if action not in (FROZEN, TRAINED) and not expected:
            raise AuditError(f"part {part} ({action}) trains nothing; do the targets name modules of this part?")
        config = applied.peft.active_peft_config if applied is not None and applied.peft is not None else None
        with_biases = getattr(config, "bias", "none") not in ("none", False)
        others = {name for name in trained - expected if not (with_biases and name.endswith("bias"))}
        _refuse(others, f"part {part} ({action}) must not train")
        _refuse(expected - trained, f"part {part} ({action}) must train")
    outside = {n for n, p in model.module.named_parameters() if p.requires_grad and id(p) not in in_parts}
    _refuse(outside, "trained, yet in no part of the freeze pattern:")


def check_gradients(model: BenchModel, *, finite: bool = True) -> None:
    """After the first backward pass: every trainable tensor has a gradient, and a finite one.

    ``finite=False`` where a loss scaler handles overflows. Raises AuditError that names the tensors.
    """
    trainable = {name: p for name, p in model.module.named_parameters() if p.requires_grad}
    # Zeros pass: LoRA's A has a gradient of zeros in the first step, as B starts at zero. Without a gradient a tensor
    # takes no part in the loss.
    without = {n for n, p in trainable.items() if p.grad is None}
    if without:
        _refuse(without, "trained, yet without a gradient in the first step:", _how_to_freeze(model, without))
    if finite:
        infinite = {n for n, p in trainable.items() if p.grad is not None and not is_finite(p.grad)}
        _refuse(infinite, "NaN or infinite gradient in the first step:")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are finite."""
    # Not by ``isfinite``: its memory, half of the tensor's, could become the measured peak. ``aminmax`` passes NaN on.
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def _how_to_freeze(model: BenchModel, names: AbstractSet[str]) -> str:
    ids = {id(p) for name, p in model.module.named_parameters() if name in names}
    remedies = []
    for part in model.part_facts:
        inside = dict(model.part(part).named_parameters())
        unused = {name for name, p in inside.items() if id(p) in ids}
        if any("base_model." in name for name in unused):
            remedies.append(f"part {part}: leave their layers out of the method's targets (target_modules)")
        elif unused:
            patterns = ", ".join(f'"{pattern}"' for pattern in _patterns(unused, inside.keys()))
            remedies.append(f"part {part}: a method {{type: subset, exclude: [{patterns}]}} in place of T")
    how = f"; train the rest: {'; '.join(remedies)}" if remedies else ""
    return f". They take no part in this task's loss{how}"


def _patterns(unused: AbstractSet[str], names: AbstractSet[str]) -> list[str]:
    """A few patterns that match all of ``unused`` and no other of ``names``."""
    patterns = set()
    for name in unused:
        any_block = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
        wide = [f"{any_block.rpartition('.')[0]}.*"] if "." in name else []
        candidates = (*wide, any_block, name)
        patterns.add(next(each for each in candidates if {n for n in names if fnmatchcase(n, each)} <= unused))
    return sorted(patterns)


def _refuse(names: AbstractSet[str], what: str, remedy: str = "") -> None:
    if names:
        shown = ", ".join(sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise AuditError(f"{what} {shown}{more}{remedy}")


@runtime_checkable
class Audited(Protocol):
    """A ``TextModel`` whose generation can be compared with its forward pass."""

    @property
    def ends(self) -> frozenset[int]:
        """Ids of the tokens that end an answer."""
        ...

    def generate(self, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]: ...

    def forward_scores(self, batch: dict[str, torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
        """Scores (rows, tokens, vocabulary) that predict each token of ``answers`` (rows, tokens; ids, no padding).

        Behind inputs that are ready to predict, in one forward pass without a cache, as in training.
        """
        ...


def check_evaluation(run: Run, batch: Batch) -> list[str]:
    """Check the evaluation on a batch of ``EXAMPLES`` test examples: every trained part must change its scores, and
    greedy generation must agree with the forward pass. Leaves weights, modes and random numbers as they were.

    Returns reasons for which something was not judged: too little memory, or all scores NaN. Raises AuditError that
    names the part, or the step, and the libraries.
    """
    unjudged: list[str] = []
    options = run.cell.evaluate.options()
    options = replace(options, max_new_tokens=min(_TOKENS, options.max_new_tokens))
    training = [module for module in run.model.module.modules() if module.training]
    try:
        with _random_numbers_kept(run.precision.device), torch.no_grad():
            run.model.module.eval()
            tensors = run.precision.to_device(batch.tensors)
            unjudged += _check_effect(run, tensors, options)
            if isinstance(run.model, Audited):
                with run.precision.context():
                    unjudged += _check_generation(run.model, tensors, options, run.precision)
    except Exception as error:
        if isinstance(error, AuditError) or memory_error(error) is None:
            raise
        print(f"no audit of the evaluation, for want of memory: {error}")
        unjudged.append(f"{_UNJUDGED}, for want of memory")
    finally:
        for module in training:
            module.training = True
    return list(dict.fromkeys(unjudged))


def _check_effect(run: Run, batch: dict[str, torch.Tensor], options: GenerateOptions) -> list[str]:
    def scores() -> list[torch.Tensor]:
        # A new autocast context each time: it keeps the weights that it has cast.
        with run.precision.context(), Observer() as observer:
            run.task.predict(run.model, dict(batch), options)
        return observer.scores

    before: list[torch.Tensor] | None = None
    for part, action in run.cell.parts.items():
        for kind, tensors in _trained(run, part, action).items():
            before = scores() if before is None else before
            if not all(bool(each.isfinite().any()) for each in before):
                return [_ALL_NAN]
            if not _has_effect(scores, before, tensors) and not _may_be_idle(kind, run.adapters.get(part)):
                raise AuditError(
                    f"part {part} ({action}): evaluation does not see what was trained. Noise on its {kind} changed no "
                    f"score of {len(next(iter(batch.values())))} test examples: {_libraries()} do not fit together "
                    "here. Install versions that this package was tested with (python run_bench.py --version), or "
                    "choose another method for this part"
                )
    return []


def _has_effect(
    scores: Callable[[], list[torch.Tensor]], before: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> bool:
    for strength in _STRENGTHS:
        with disturbed(tensors, strength):
            try:
                after = scores()
            except (ArithmeticError, RuntimeError, ValueError) as error:
                if memory_error(error) is not None:
                    raise
                return True  # the evaluation sees the noise and cannot compute with it
        if differ(before, after):
            return True
    return False


def _trained(run: Run, part: str, action: str) -> dict[str, list[torch.nn.Parameter]]:
    """Kind -> trained tensors of the part, at most ``_MAX_ELEMENTS`` elements evenly chosen, at least one tensor."""
    kinds: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in run.model.part(part).named_parameters() if action != FROZEN else ():
        if parameter.requires_grad:
            kind = next((k for k in _KINDS if k in name and part in run.adapters), "trained tensors")
            kinds.setdefault(kind, []).append(parameter)
    for kind, parameters in kinds.items():
        every = max(1, -(-sum(p.numel() for p in parameters) // _MAX_ELEMENTS))
        small = [p for p in parameters[::every] if p.numel() <= _MAX_ELEMENTS]
        kinds[kind] = small or [min(parameters, key=lambda p: p.numel())]
    return kinds


def _may_be_idle(kind: str, adapter: AppliedMethod | None) -> bool:
    """Whether the tensors affect only texts with certain tokens, which an audit's examples need not have."""
    config = adapter.peft.active_peft_config if adapter is not None and adapter.peft is not None else None
    return kind == _TOKENS_DELTA or bool(getattr(config, "alora_invocation_tokens", None))


def _check_generation(
    model: Audited, batch: dict[str, torch.Tensor], options: GenerateOptions, precision: Precision
) -> list[str]:
    """Compare greedy generation with one forward pass over prompt and answer, without a cache, as in training."""
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
    """Largest difference (rows,) of two sets of scores (rows, vocabulary), in units of the largest score; infinite
    where only one of the two is NaN or inf.
    """
    # Tokens that generation rules out, by -inf, are not compared; a constant of each row is the difference between
    # scores and log-probabilities.
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


class Observer(TorchFunctionMode):
    """Copies the scores by which code inside ``with observer:`` decides, for any model family and task.

    Decisions inside modules (of a router, of pooling) are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[torch.Tensor] = []
        """Floating-point scores that code outside all modules chose by, in order."""
        self.outputs: list[torch.Tensor] = []
        """Floating-point outputs of the modules called from outside all modules, in order."""
        self._depth = 0
        self._hooks = ExitStack()

    @property
    def scores(self) -> list[torch.Tensor]:
        """The decisions, or the outputs if the code decides by none of the known functions."""
        return self.decisions or self.outputs

    def __enter__(self) -> Observer:
        """Start to observe."""
        self._hooks.callback(_hooks.register_module_forward_pre_hook(self._enter_module).remove)
        self._hooks.callback(_hooks.register_module_forward_hook(self._leave_module, always_call=True).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop observing."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.close()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and keep its scores if it is one of ``_DECIDING``."""
        kwargs = kwargs or {}
        if self._depth == 0 and getattr(func, "__name__", "") in _DECIDING:
            self.decisions += _scores_of(args[0] if args else kwargs.get("input"))
        return func(*args, **kwargs)

    def _enter_module(self, _module: torch.nn.Module, _args: Any) -> None:
        self._depth += 1

    def _leave_module(self, _module: torch.nn.Module, _args: Any, output: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            output = list(output.values()) if isinstance(output, Mapping) else output
            for value in output if isinstance(output, list | tuple) else (output,):
                self.outputs += _scores_of(value)


def _scores_of(value: Any) -> list[torch.Tensor]:
    """A copy of ``value`` if it can be scores, else nothing."""
    is_score = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 0 and value.numel() > 0
    return [value.detach().clone()] if is_score else []


def differ(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> bool:
    """Whether two runs computed scores that differ by more than rounding."""
    return len(before) != len(after) or any(map(_differ, before, after))


def _differ(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape or not torch.equal(before.isnan(), after.isnan()):
        return True
    old, new = (each.float().nan_to_num() for each in (before, after))
    finite = before.float()[before.isfinite()].abs()
    rounding = 8 * torch.finfo(torch.float32).eps * (float(finite.max()) if finite.numel() else 0.0)
    return bool((old - new).abs().max() > rounding)


@contextmanager
def disturbed(tensors: Sequence[torch.Tensor], strength: float) -> Iterator[None]:
    """Inside, noise of ``strength`` times their spread is added to the tensors; afterwards they hold the same bits."""
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                generator = torch.Generator(tensor.device).manual_seed(0)  # leaves the run's generators alone
                noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
                spread = float(tensor.float().std()) if tensor.numel() > 1 else 0.0
                tensor.add_((noise * (strength * max(spread, _LEAST_SPREAD))).to(tensor.dtype))
        yield
    finally:
        with torch.no_grad():
            for tensor, original in zip(tensors, kept, strict=True):
                tensor.copy_(original)

"""The training loop, and what it leaves behind step by step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from bench.errors import DivergedError
from bench.execution.contracts import Progress, Step
from bench.plugins.contracts import BenchModel
from bench.records.record import LossPoint
from bench.training.audit import check_gradients, is_finite
from bench.training.data import Batch
from bench.training.device import Precision
from bench.training.measure import Stopwatch
from bench.training.optimizer import ParamGroup, Schedule, cuda_optimizer_kernels, make_groups, make_optimizer, set_rate
from bench.training.penalty import OrthogonalRegularizer

Loss = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""From a batch to its mean loss, shape ()."""
_REALLOCATE = "update_and_allocate"
"""What peft's adaptive methods want called after each step, to move their rank to where it matters (AdaLoRA's and
AdaMSS's budget)."""


@dataclass(kw_only=True, slots=True)
class TrainLog:
    """Filled while training, so that a failure loses nothing that was measured before it."""

    watch: Stopwatch
    steps: int = 0
    curve: list[LossPoint] = field(default_factory=list)
    on_step: Callable[[Step], None] | None = None
    """Is told of every step; must take microseconds, since the time of the next step has begun."""
    _since: list[float] = field(default_factory=list)

    def add(self, loss: float, rate: float, *, every: int, last: bool) -> None:
        """Note a finished step; every ``every`` steps and at the end a point of the curve."""
        self._since.append(loss)
        if self.steps % every == every - 1 or last:
            self.curve.append(LossPoint(step=self.steps, loss=sum(self._since) / len(self._since), lr=rate))
            self._since.clear()
        if self.on_step is not None:
            self.on_step(Step(step=self.steps, loss=loss, lr=rate, step_s=self.watch.last_s, at=time.time()))
        self.steps += 1


class Trainer:
    """One optimizer step after another on the trained tensors of a model; the estimate takes the same on meta."""

    def __init__(
        self, model: BenchModel, loss: Loss, plan: Schedule, precision: Precision, groups: Sequence[ParamGroup] = ()
    ) -> None:
        self._model = model
        self._loss = loss
        self._plan = plan
        self._precision = precision
        self._trained = [p for p in model.module.parameters() if p.requires_grad]
        grouped = make_groups(plan.settings.optimizer, self._trained, groups)
        self._optimizer = make_optimizer(plan.settings.optimizer, grouped, precision.device)
        self._penalty = OrthogonalRegularizer(model.module)
        self._reallocating = [m for m in model.module.modules() if hasattr(type(m), _REALLOCATE)]
        if plan.settings.gradient_checkpointing:
            model.checkpoint_activations()
        self._scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.scales_loss)

    def step(self, step: int, batches: Sequence[Batch]) -> torch.Tensor:
        """Forward and backward of each micro-batch, then one update; the mean loss stays on the device.

        Runs on the meta device under a mode that answers ``.item()``: to the loss scaler, which asks for the number of
        infinite gradients (float), with 0, else it skips the update.
        """
        set_rate(self._optimizer, self._plan.rate(step))
        late = self._plan.settings.zero_grad == "before_backward"
        if not late:
            self._optimizer.zero_grad()
        rows = [_rows(batch) for batch in batches]
        losses: list[torch.Tensor] = []
        for batch, own in zip(batches, rows, strict=True):
            with self._precision.context():
                self._penalty.begin()
                loss = self._penalty.added_to(self._loss(self._precision.to_device(batch.tensors)))
            if late and not losses:
                self._optimizer.zero_grad()
            if len(batches) > 1:  # as if the examples had gone through in one batch, also where the last one is smaller
                loss = loss * (own / sum(rows))
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if step == 0 and total.isfinite():  # a diverged cell is not one that fails the audit
            check_gradients(self._model, finite=not self._precision.scales_loss)
        with cuda_optimizer_kernels(self._precision.device):
            self._update(step)
        return total

    def _update(self, step: int) -> None:
        if self._plan.settings.gradient_clip is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self._plan.settings.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for adapter in self._reallocating if self._precision.device.type != "meta" else ():
            getattr(adapter, _REALLOCATE)(step)  # needs this step's gradients, and values that meta has not

    def has_finite_weights(self) -> bool:
        """Whether the last update left every trained tensor finite."""
        return all(is_finite(p) for p in self._trained)


def _rows(batch: Batch) -> int:
    return len(next(iter(batch.tensors.values())))


def train(
    model: BenchModel,
    loss: Loss,
    batches: Iterator[Sequence[Batch]],
    plan: Schedule,
    precision: Precision,
    log: TrainLog,
    beat: Callable[[Progress], None],
    groups: Sequence[ParamGroup] = (),
) -> None:
    """Take all steps of the plan, each with its micro-batches; ``groups`` have rates of their own.

    A step's time runs from the end of the step before it, so it includes waiting for its batches, as users pay it.
    Raises DivergedError at the first NaN or infinite loss, AuditError after step 0.
    """
    model.module.train()
    trainer = Trainer(model, loss, plan, precision, groups)
    log.watch.start()
    for step, group in enumerate(batches):
        log.watch.batch_ready()
        value = trainer.step(step, group).item()  # waits for the device
        log.watch.step_done(sum(len(batch.examples) for batch in group))
        if not math.isfinite(value):
            raise DivergedError(f"the loss became {value} in step {step}; {_remedy(precision)}")
        log.add(value, plan.rate(step), every=plan.settings.log_every, last=step == plan.steps - 1)
        beat(Progress(phase="train", done=step + 1, total=plan.steps, note=f"loss {value:.3f}"))
    if not trainer.has_finite_weights():
        raise DivergedError(f"the weights became NaN or infinite in the last step ({plan.steps - 1})")
    model.module.zero_grad()  # evaluation must not pay for gradients that nobody needs any more


def _remedy(precision: Precision) -> str:
    if precision.weights is torch.float16:
        return "AdamW's epsilon of 1e-8 is zero in fp16: use precision fp16_autocast or bf16"
    return "try a lower learning rate or gradient_clip"

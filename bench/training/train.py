"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from bench.errors import DivergedError
from bench.execution.contracts import Progress
from bench.plugins.contracts import BenchModel
from bench.training.adapt import Run, method_groups
from bench.training.audit import check_gradients, is_finite
from bench.training.data import Batch, training_batches
from bench.training.device import Precision
from bench.training.measure import TrainLog
from bench.training.optimizer import (
    ParamGroup,
    Schedule,
    cuda_optimizer_kernels,
    make_groups,
    make_optimizer,
    make_schedule,
)

Loss = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Batch -> mean loss, shape ()."""
# A method of peft's AdaLoRA and AdaMSS, to be called after each step: it moves their rank to where it matters.
_REALLOCATE = "update_and_allocate"


class OrthogonalRegularizer:
    """Adds AdaLoRA's orthogonality term (Zhang et al. 2023, eq. 4) to the loss where peft does not.

    peft adds it to the ``loss`` that an adapted model returns; a part such as an image encoder returns none.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._adapters = [m for m in module.modules() if _regularization_weight(m)]
        self._done: set[torch.nn.Module] = set()
        for adapter in self._adapters:
            adapter.register_forward_hook(self._see_output)

    def begin(self) -> None:
        """Start a forward pass."""
        self._done.clear()

    def add_to(self, loss: torch.Tensor) -> torch.Tensor:
        """``loss`` () plus the terms that peft has not added in this forward pass; a new tensor if there are any."""
        for adapter in self._adapters:
            if adapter not in self._done:
                loss = peft_penalty(adapter, loss.clone())
        return loss

    def _see_output(self, adapter: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(getattr(output, "loss", None), torch.Tensor):
            self._done.add(adapter)


def _regularization_weight(module: torch.nn.Module) -> Any:
    adapter = vars(module).get("trainable_adapter_name")  # not getattr: peft's wrapper answers for the model in it
    adalora: Any = module
    return getattr(adalora.peft_config[adapter], "orth_reg_weight", 0.0) if adapter else 0.0


def peft_penalty(adapter: Any, loss: torch.Tensor) -> torch.Tensor:
    """``loss`` with peft's own term: its forward pass over a stand-in for the model, which returns ``loss``."""
    output: Any = SimpleNamespace(loss=loss)
    inner = SimpleNamespace(forward=lambda: output, named_parameters=adapter.model.named_parameters)
    stand_in = SimpleNamespace(
        model=inner, peft_config=adapter.peft_config, trainable_adapter_name=adapter.trainable_adapter_name
    )
    type(adapter).forward(stand_in)
    total: torch.Tensor = output.loss
    return total


class Trainer:
    """Takes optimizer steps on the trained tensors of a model; an estimate takes them on the meta device."""

    def __init__(
        self,
        model: BenchModel,
        loss: Loss,
        schedule: Schedule,
        precision: Precision,
        groups: Sequence[ParamGroup] = (),
    ) -> None:
        self._model, self._loss, self._precision = model, loss, precision
        self._settings = schedule.settings
        self._trained = [p for p in model.module.parameters() if p.requires_grad]
        grouped = make_groups(self._settings.optimizer, self._trained, groups)
        self._optimizer = make_optimizer(self._settings.optimizer, grouped, precision.device)
        self._rates = schedule.attach(self._optimizer)
        self._regularizer = OrthogonalRegularizer(model.module)
        self._reallocating = [m for m in model.module.modules() if hasattr(type(m), _REALLOCATE)]
        if self._settings.gradient_checkpointing:
            model.checkpoint_activations()
        self._scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.scales_loss)

    def step(self, step: int, batches: Sequence[Batch]) -> torch.Tensor:
        """Forward and backward of each micro-batch, then one update; steps count from 0. Returns the mean loss ().

        Raises AuditError after step 0. On meta it needs a mode that answers ``.item()``.
        """
        late = self._settings.zero_grad == "before_backward"
        if not late:
            self._optimizer.zero_grad()
        rows = [len(next(iter(batch.tensors.values()))) for batch in batches]
        losses: list[torch.Tensor] = []
        for batch, own in zip(batches, rows, strict=True):
            with self._precision.context():
                self._regularizer.begin()
                loss = self._regularizer.add_to(self._loss(self._precision.to_device(batch.tensors)))
            if late and not losses:
                self._optimizer.zero_grad()
            if len(batches) > 1:  # weighted as in one large batch, also where the last micro-batch is smaller
                loss = loss * (own / sum(rows))
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if step == 0 and total.isfinite():  # a diverged cell has not failed the audit
            check_gradients(self._model, finite=not self._precision.scales_loss)
        with cuda_optimizer_kernels(self._precision.device):
            self._update(step)
        return total

    def _update(self, step: int) -> None:
        if self._settings.gradient_clip is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self._settings.gradient_clip)
        # On meta the scaler must read 0 infinite gradients, else it skips the update.
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._rates.step()
        for adapter in self._reallocating if self._precision.device.type != "meta" else ():
            getattr(adapter, _REALLOCATE)(step)  # needs this step's gradients, and values, which meta has not

    def has_finite_weights(self) -> bool:
        """Whether the last update left every trained tensor finite."""
        return all(is_finite(p) for p in self._trained)


def train(run: Run, log: TrainLog, beat: Callable[[Progress], None]) -> None:
    """Train for all steps of the schedule; without trained tensors, do nothing.

    A step's time runs from the end of the step before it, so it includes waiting for its batches, as users pay it.
    Raises DivergedError at the first NaN or infinite loss, AuditError after step 0.
    """
    cell, model = run.cell, run.model
    if not any(p.requires_grad for p in model.module.parameters()):
        return
    schedule = make_schedule(cell.train, len(run.data.train))
    batches = training_batches(run.data, model, run.task, cell.train, steps=schedule.steps, seed=cell.seed)
    groups = method_groups(model, cell.parts, cell.methods)
    model.module.train()
    trainer = Trainer(model, partial(run.task.loss, model), schedule, run.precision, groups)
    log.start()
    for step, group in enumerate(batches):
        log.batch_ready()
        loss = trainer.step(step, group).item()  # waits for the device
        log.step_done(sum(len(batch.examples) for batch in group))
        if not math.isfinite(loss):
            remedy = "try a lower learning rate or gradient_clip"
            if run.precision.weights is torch.float16:
                remedy = "AdamW's epsilon of 1e-8 is zero in fp16: use precision fp16_autocast or bf16"
            raise DivergedError(f"the loss became {loss} in step {step}; {remedy}")
        log.add(loss, schedule.rate(step), every=cell.train.log_every, last=step == schedule.steps - 1)
        beat(Progress(phase="train", done=step + 1, total=schedule.steps, note=f"loss {loss:.3f}"))
    if not trainer.has_finite_weights():
        raise DivergedError(f"the weights became NaN or infinite in the last step ({schedule.steps - 1})")
    model.module.zero_grad()  # evaluation must not pay for gradients

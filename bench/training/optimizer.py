"""Optimizer, learning-rate schedule and numeric precision of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.optim import optimizer as _torch_optimizer
from torch.utils import _foreach_utils

from bench.errors import BenchError
from bench.plugins.settings import MethodTraining
from bench.spec.sections import OptimizerSettings, TrainSettings

_ONE_CYCLE_RISE = 0.3
_ONE_CYCLE_START = 25.0
_ONE_CYCLE_END = 1e4
"""Share of steps that rise, and by what the peak is divided at the start, and the start at the end: the defaults of
``torch.optim.lr_scheduler.OneCycleLR``."""
_KERNELS = {"auto": {}, "foreach": {"foreach": True}, "fused": {"fused": True}, "for_loop": {"foreach": False}}
_KERNEL_SUPPORT = (
    (_foreach_utils, "_get_foreach_kernels_supported_devices"),
    (_torch_optimizer, "_get_foreach_kernels_supported_devices"),
    (_torch_optimizer, "_get_fused_kernels_supported_devices"),
)
"""Where torch asks which devices have foreach and fused kernels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamGroup:
    """Trained tensors of a method that has a learning rate or a weight decay of its own."""

    parameters: list[torch.nn.Parameter]
    training: MethodTraining


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How many steps a training takes and at which learning rates."""

    settings: TrainSettings
    steps: int
    steps_per_epoch: int

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (from 0)."""
        peak, low = self.settings.optimizer.lr, self.settings.min_lr
        if self.settings.schedule == "one_cycle":
            return self._one_cycle(step, peak, low)
        warmup = self.settings.warmup_steps
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.settings.schedule == "cosine":
            return _cosine(peak, low, (step - warmup) / max(1, self.steps - warmup))
        if self.settings.schedule == "cosine_per_epoch":
            return _cosine(peak, low, step // self.steps_per_epoch / math.ceil(self.steps / self.steps_per_epoch))
        if self.settings.schedule == "polynomial":
            return low + (peak - low) * (1 - (step - warmup) / max(1, self.steps - warmup))
        return peak

    def _one_cycle(self, step: int, peak: float, low: float) -> float:
        """Cosine from a 25th of the peak up to it (over ``warmup_steps``, or 30 % of the steps), then down."""
        start = peak / _ONE_CYCLE_START
        top = float(self.settings.warmup_steps or _ONE_CYCLE_RISE * self.steps) - 1
        if step < top:
            return _cosine(start, peak, step / top)
        return _cosine(peak, max(low, start / _ONE_CYCLE_END), (step - top) / max(1.0, self.steps - 1 - top))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def make_schedule(settings: TrainSettings, examples: int) -> Schedule:
    """The plan for a training set of that many examples; the last step of an epoch may see fewer."""
    per_epoch = math.ceil(examples / (settings.batch_size * settings.gradient_accumulation_steps))
    steps = settings.steps if settings.steps is not None else (settings.epochs or 1) * per_epoch
    return Schedule(settings=settings, steps=steps, steps_per_epoch=per_epoch)


SHARE = "rate_share"
"""Key of a parameter group: its peak learning rate, as a multiple of the one of the settings."""


def make_groups(
    settings: OptimizerSettings, trained: Iterable[torch.nn.Parameter], own: Iterable[ParamGroup]
) -> list[dict[str, Any]]:
    """Parameter groups for torch: one for each of ``own``, and first one of what is in none of them."""
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for group in own:
        parameters = [p for p in group.parameters if id(p) not in taken]
        taken |= {id(p) for p in parameters}
        given: dict[str, Any] = {"params": parameters, SHARE: (group.training.lr or settings.lr) / settings.lr}
        if group.training.weight_decay is not None:
            given["weight_decay"] = group.training.weight_decay
        groups.append(given)
    rest = [p for p in trained if id(p) not in taken]
    return [group for group in [{"params": rest, SHARE: 1.0}, *groups] if group["params"]]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the plan's rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SHARE, 1.0)


def make_optimizer(
    settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter] | list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer as torch or bitsandbytes ships it, on the trained tensors alone, or on groups of them. Raises
    BenchError without the latter.
    """
    kernels: dict[str, Any] = _KERNELS[settings.implementation]
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    with cuda_optimizer_kernels(device):
        if settings.name == "adamw_8bit":
            return _bitsandbytes().AdamW8bit(parameters, betas=settings.betas, **shared)  # type: ignore[no-any-return]
        if settings.name == "sgd":
            return torch.optim.SGD(parameters, momentum=settings.momentum, **shared, **kernels)
        return torch.optim.AdamW(parameters, betas=settings.betas, **shared, **kernels)


def _bitsandbytes() -> Any:
    try:
        from bitsandbytes import optim  # compiled for each platform: not everybody's dependency
    except ImportError:
        raise BenchError('optimizer adamw_8bit needs bitsandbytes: pip install "peft-freeze-bench[8bit]"') from None
    return optim


@contextmanager
def cuda_optimizer_kernels(device: torch.device) -> Iterator[None]:
    """On meta, torch's optimizers and clipping take the foreach and fused kernels that they would take on CUDA: left
    alone they loop over meta tensors one by one, which allocates something else. No effect on other devices.
    """
    with ExitStack() as stack:
        for module, name in _KERNEL_SUPPORT if device.type == "meta" else ():
            stack.enter_context(mock.patch.object(module, name, return_value=["meta"]))
        yield

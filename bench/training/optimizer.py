"""Learning-rate schedule, parameter groups and optimizer of a training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.optim import optimizer as _torch_optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils import _foreach_utils

from bench.errors import BenchError
from bench.plugins.settings import MethodTraining
from bench.spec.sections import OptimizerSettings, TrainSettings

# The defaults of ``torch.optim.lr_scheduler.OneCycleLR``: share of the steps that rise, peak / start, start / end.
_ONE_CYCLE_RISE, _ONE_CYCLE_START, _ONE_CYCLE_END = 0.3, 25.0, 1e4
_KERNELS = {"auto": {}, "foreach": {"foreach": True}, "fused": {"fused": True}, "for_loop": {"foreach": False}}
# Where torch asks which devices have foreach and fused kernels.
_KERNEL_SUPPORT = (
    (_foreach_utils, "_get_foreach_kernels_supported_devices"),
    (_torch_optimizer, "_get_foreach_kernels_supported_devices"),
    (_torch_optimizer, "_get_fused_kernels_supported_devices"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Number of optimizer steps and learning rate of each."""

    settings: TrainSettings
    steps: int
    steps_per_epoch: int

    def rate(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (from 0)."""
        kind, peak, low = self.settings.schedule, self.settings.optimizer.lr, self.settings.min_lr
        warmup = self.settings.warmup_steps
        if kind == "one_cycle":
            start = peak / _ONE_CYCLE_START
            top = float(warmup or _ONE_CYCLE_RISE * self.steps) - 1
            if step < top:
                return _cosine(start, peak, step / top)
            return _cosine(peak, max(low, start / _ONE_CYCLE_END), (step - top) / max(1.0, self.steps - 1 - top))
        if step < warmup:
            return peak * (step + 1) / warmup
        share = (step - warmup) / max(1, self.steps - warmup)
        if kind == "cosine":
            return _cosine(peak, low, share)
        if kind == "cosine_per_epoch":
            return _cosine(peak, low, step // self.steps_per_epoch / math.ceil(self.steps / self.steps_per_epoch))
        if kind == "polynomial":
            return low + (peak - low) * (1 - share)
        return peak

    def attach(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        """Scheduler of all parameter groups, each by its own peak; its ``step()`` follows that of the optimizer."""
        # A loss scaler may skip the first updates, which the scheduler takes for a wrong order of calls.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
        return LambdaLR(optimizer, lambda step: self.rate(step) / self.settings.optimizer.lr)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def make_schedule(settings: TrainSettings, examples: int) -> Schedule:
    """Schedule for that many training examples; the last step of an epoch may see fewer."""
    per_epoch = math.ceil(examples / (settings.batch_size * settings.gradient_accumulation_steps))
    steps = settings.steps if settings.steps is not None else (settings.epochs or 1) * per_epoch
    return Schedule(settings=settings, steps=steps, steps_per_epoch=per_epoch)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamGroup:
    """Trained tensors of a method with its own learning rate or weight decay."""

    parameters: list[torch.nn.Parameter]
    training: MethodTraining


def make_groups(
    settings: OptimizerSettings, trained: Iterable[torch.nn.Parameter], special: Iterable[ParamGroup]
) -> list[dict[str, Any]]:
    """Parameter groups for torch: first the tensors in none of ``special``, then one group for each of these."""
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for group in special:
        parameters = [p for p in group.parameters if id(p) not in taken]
        taken |= {id(p) for p in parameters}
        options: dict[str, Any] = {"params": parameters, "lr": group.training.lr or settings.lr}
        if group.training.weight_decay is not None:
            options["weight_decay"] = group.training.weight_decay
        groups.append(options)
    rest = [p for p in trained if id(p) not in taken]
    return [group for group in [{"params": rest}, *groups] if group["params"]]


def make_optimizer(
    settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter] | list[dict[str, Any]], device: torch.device
) -> torch.optim.Optimizer:
    """Optimizer of torch or bitsandbytes on tensors or parameter groups. Raises BenchError without bitsandbytes."""
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
        from bitsandbytes import optim  # compiled for each platform, so only an extra
    except ImportError:
        raise BenchError('optimizer adamw_8bit needs bitsandbytes: pip install "peft-freeze-bench[8bit]"') from None
    return optim


@contextmanager
def cuda_optimizer_kernels(device: torch.device) -> Iterator[None]:
    """On meta, torch's optimizers and clipping take the foreach and fused kernels of CUDA; no effect elsewhere."""
    # Unpatched, they loop over meta tensors one by one, with other allocations.
    with ExitStack() as stack:
        for module, name in _KERNEL_SUPPORT if device.type == "meta" else ():
            stack.enter_context(mock.patch.object(module, name, return_value=["meta"]))
        yield

"""Steps of training on generated inputs, the same on a CPU, a GPU and meta."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.plugins.contracts import InputLengths, TextModel
from bench.spec.sections import TrainSettings
from bench.training.data import Batch
from bench.training.device import Precision, make_precision
from bench.training.optimizer import Schedule
from bench.training.train import Trainer


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated(Precision):
    """Makes inputs of the asked shapes on the device, as a run's come there; only their shapes matter."""

    note: Callable[[list[torch.Tensor]], None]
    """Told of them."""

    def to_device(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Noise for images; ones for ids and masks, ended by a zero: the padding."""
        placed = {}
        for name, like in tensors.items():
            if like.is_floating_point():
                placed[name] = torch.rand(like.shape, device=self.device, dtype=self.weights)
            else:
                placed[name] = torch.ones(like.shape, device=self.device, dtype=like.dtype)
                placed[name][..., -1] = 0
        self.note(list(placed.values()))
        return placed


def generated(name: str, device: str, note: Callable[[list[torch.Tensor]], None] = lambda _: None) -> Generated:
    """A precision by its name, with generated inputs."""
    base = make_precision(name, torch.device(device))
    return Generated(device=base.device, weights=base.weights, compute=base.compute, note=note)


def take_steps(
    model: TextModel,
    settings: TrainSettings,
    lengths: Sequence[InputLengths],
    precision: Precision,
    after: Callable[[int], None] = lambda _: None,
) -> None:
    """A step with all its micro-batches for each of ``lengths``; ends without gradients, as a run's training does."""
    model.module.train()
    trainer = Trainer(
        model, model.loss, Schedule(settings=settings, steps=len(lengths), steps_per_epoch=len(lengths)), precision
    )
    for step, each in enumerate(lengths):
        batch = shapes(model, settings.batch_size, each)
        trainer.step(step, [batch] * settings.gradient_accumulation_steps)
        after(step)
    model.module.zero_grad()


def shapes(model: TextModel, batch_size: int, lengths: InputLengths) -> Batch:
    """A batch as ``Generated`` takes it: it stands for what is not yet on the device, so no mode may count it."""
    with torch.utils._python_dispatch._disable_current_modes():
        return Batch(examples=(), tensors=model.meta_inputs(batch_size, lengths, with_answers=True))

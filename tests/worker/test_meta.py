"""What the estimate stands on: the run's own Trainer takes steps on the meta device, as CUDA would take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.estimate.autocast import autocast_on_meta
from bench.spec.cell import Cell
from bench.training.adapt import adapt
from bench.training.data import Batch
from bench.training.device import make_precision
from bench.training.optimizer import make_schedule
from bench.training.train import Trainer
from tests import factories

Make = Callable[..., Cell]


class Answering(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators, and answers ``.item()`` with 0: no infinite gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            return False if args[0].dtype is torch.bool else 0.0
        return func(*args, **(kwargs or {}))


def steps_on_meta(cell: Cell, steps: int = 2, micro_batches: int = 1) -> tuple[Counter[str], Trainer]:
    plugin = factories.plugin("models", cell.model.family)
    model = plugin.build(cell.model, texts=["a red circle"], device="meta")
    adapt(model, plugin.PARTS, cell.parts, cell.methods)
    precision = make_precision(cell.train.precision, torch.device("meta"))
    model.module.to(precision.weights).train()
    trainer = Trainer(model, model.loss, make_schedule(cell.train, examples=100), precision)
    inputs = model.meta_inputs(3, model.max_lengths(), with_answers=True)
    with autocast_on_meta(), Answering() as mode:
        for step in range(steps):
            loss = trainer.step(step, [Batch(examples=(), tensors=inputs)] * micro_batches)
            assert loss.device.type == "meta"
    return mode.seen, trainer


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_autocast", "fp16_autocast"])
def test_every_precision_updates_and_clips(make_cell: Make, precision: str) -> None:
    seen, trainer = steps_on_meta(make_cell(train={"precision": precision, "gradient_clip": 1.0}))
    assert len(trainer._optimizer.state) == len(trainer._trained)
    assert seen["_foreach_norm"] == 2, "clipping takes the kernels of CUDA"


@pytest.mark.parametrize(
    ("implementation", "kernel"),
    [
        ("auto", "_foreach_addcdiv_"),
        ("foreach", "_foreach_addcdiv_"),
        ("for_loop", "addcdiv_"),
        ("fused", "_fused_adamw_"),
    ],
)
def test_the_optimizer_takes_the_kernels_it_would_take_on_cuda(
    make_cell: Make, implementation: str, kernel: str
) -> None:
    cell = make_cell(train={"optimizer": {"lr": 1e-3, "implementation": implementation}})
    seen, trainer = steps_on_meta(cell)
    kernels = {"_foreach_addcdiv_", "addcdiv_", "_fused_adamw_"}
    assert kernels & seen.keys() == {kernel}
    assert seen[kernel] == 2 * (len(trainer._trained) if implementation == "for_loop" else 1)


def test_each_micro_batch_goes_through_before_one_update(make_cell: Make) -> None:
    seen, _ = steps_on_meta(make_cell(), steps=1, micro_batches=3)
    alone, _ = steps_on_meta(make_cell(), steps=1)
    assert seen["native_layer_norm_backward"] == 3 * alone["native_layer_norm_backward"] > 0
    assert seen["_foreach_addcdiv_"] == 1


@pytest.mark.parametrize("method", ["lora", "ia3", "prefix", "ptuning_v2"])
def test_checkpointing_runs_every_layer_forward_twice(make_cell: Make, method: str) -> None:
    parts = {"vit": "T", "jtm": "M", "dec": "M"}
    methods = {"M": {"type": method}}
    plain, _ = steps_on_meta(make_cell(parts=parts, methods=methods))
    twice, _ = steps_on_meta(make_cell(parts=parts, methods=methods, train={"gradient_checkpointing": True}))
    assert twice["native_layer_norm"] > plain["native_layer_norm"]
    assert twice["native_layer_norm_backward"] == plain["native_layer_norm_backward"]

"""Training by micro-batches and with checkpointing is the training without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.records.record import CellRecord, Status
from bench.spec.cell import Cell
from bench.training.adapt import adapt
from bench.training.data import load_data, task_of, training_batches
from bench.training.device import make_precision, seed_everything
from bench.training.optimizer import make_schedule
from bench.training.train import Trainer
from bench.worker.run import run_cell
from tests import factories

Make = Callable[..., Cell]
CPU = torch.device("cpu")


def trained(cell: Cell) -> tuple[list[float], list[torch.Tensor]]:
    """Losses of all steps, and the trained tensors after them."""
    seed_everything(cell.seed, CPU)
    data = load_data(cell.data)
    plugin = factories.plugin("models", cell.model.family)
    model = plugin.build(cell.model, texts=data.source.texts(), device="cpu")
    adapt(model, plugin.PARTS, cell.parts, cell.methods)
    plan = make_schedule(cell.train, len(data.train))
    trainer = Trainer(model, model.loss, plan, make_precision(cell.train.precision, CPU))
    model.module.train()
    groups = training_batches(data, model, task_of(cell), cell.train, steps=plan.steps, seed=cell.seed)
    losses = [trainer.step(step, group).item() for step, group in enumerate(groups)]
    return losses, [p.detach() for p in model.module.parameters() if p.requires_grad]


@pytest.mark.parametrize("zero_grad", ["before_forward", "before_backward"])
def test_accumulating_equals_one_large_batch_also_where_the_last_is_smaller(make_cell: Make, zero_grad: str) -> None:
    """34 examples: an epoch of two steps, of 6 + 6 + 6 and of 6 + 6 + 4."""
    shared = {"steps": None, "epochs": 2, "zero_grad": zero_grad, "optimizer": {"name": "sgd", "lr": 0.1}}
    data = {"train_limit": 34}
    parts = {"vit": "T", "jtm": "T", "dec": "T"}
    large = trained(make_cell(parts=parts, data=data, train={**shared, "batch_size": 18}))
    small = trained(
        make_cell(parts=parts, data=data, train={**shared, "batch_size": 6, "gradient_accumulation_steps": 3})
    )
    assert len(large[0]) == 4
    assert small[0] == pytest.approx(large[0], rel=1e-5)
    for one, other in zip(small[1], large[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_checkpointing_trains_to_the_same_weights(make_cell: Make) -> None:
    methods = {"P": {"type": "prefix", "num_virtual_tokens": 4}, "LoRA": {"type": "lora", "r": 4}}
    parts = {"vit": "T", "jtm": "LoRA", "dec": "P"}
    plain = trained(make_cell(parts=parts, methods=methods))
    found = trained(make_cell(parts=parts, methods=methods, train={"gradient_checkpointing": True}))
    assert found[0] == pytest.approx(plain[0], rel=1e-5)
    for one, other in zip(found[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_cell_with_all_of_it_counts_optimizer_steps(make_cell: Make, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "steps": None,
        "epochs": 2,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
        "gradient_clip": 1.0,
        "precision": "bf16_autocast",
        "optimizer": {"lr": 1e-3, "implementation": "foreach"},
        "timing_warmup_steps": 1,
        "log_every": 1,
    }
    record: CellRecord = run_cell(make_cell(model={"attention": "sdpa"}, train=changes), tmp_path)
    assert (record.status, record.error, record.steps) == (Status.OK, None, 6)
    assert [point.step for point in record.loss_curve] == list(range(6))
    assert record.time.train_s is not None
    samples = (record.time.samples_per_s or 0) * record.time.train_s
    assert samples == pytest.approx(2 * 40 - 16), "of 16, 16 and 8 an epoch, the first is not timed"

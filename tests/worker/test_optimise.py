"""Learning-rate schedules, step counts, precisions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.spec.models import TrainSettings
from bench.worker.optimise import Plan, make_optimizer, make_plan, make_precision


def plan(examples: int = 40, **settings: Any) -> Plan:
    base: dict[str, Any] = {"batch_size": 10, "optimizer": {"lr": 1.0}}
    return make_plan(TrainSettings.model_validate(base | settings), examples)


def rates(made: Plan) -> list[float]:
    return [made.rate(step) for step in range(made.steps)]


def test_epochs_count_the_smaller_last_batch() -> None:
    assert plan(examples=41, epochs=3).steps == 15
    assert plan(examples=41, steps=7).steps == 7


def test_constant_with_warmup() -> None:
    assert rates(plan(steps=6, schedule="constant", warmup_steps=4)) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_equals_the_one_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    for rate in rates(plan(steps=20, schedule="cosine", min_lr=0.1)):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_cosine_spans_the_steps_after_the_warmup() -> None:
    made = plan(steps=12, schedule="cosine", warmup_steps=4)
    assert (made.rate(3), made.rate(4), made.rate(8), made.rate(12)) == pytest.approx((1.0, 1.0, 0.5, 0.0))


def test_cosine_per_epoch_is_flat_within_an_epoch() -> None:
    found = rates(plan(examples=40, epochs=2, schedule="cosine_per_epoch"))
    assert found == pytest.approx([1.0] * 4 + [0.5] * 4)


@pytest.mark.parametrize("steps", [10, 37])
def test_one_cycle_equals_the_one_of_torch(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    for step, rate in enumerate(rates(plan(steps=steps, schedule="one_cycle"))):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            reference.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_very_few_steps_stays_within_the_peak(steps: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(plan(steps=steps, schedule="one_cycle")))


def test_optimizer_takes_the_settings() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    settings = TrainSettings.model_validate(
        {"steps": 1, "batch_size": 1, "optimizer": {"lr": 0.5, "weight_decay": 0.05, "betas": [0.8, 0.9]}}
    )
    group = make_optimizer(settings.optimizer, [weight], torch.device("cpu")).param_groups[0]
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (0.5, 0.05, (0.8, 0.9))


def test_precisions() -> None:
    cpu = torch.device("cpu")
    images = {"pixel_values": torch.zeros(1), "input_ids": torch.zeros(1, dtype=torch.long)}
    placed = make_precision("bf16", cpu).place(images)
    assert (placed["pixel_values"].dtype, placed["input_ids"].dtype) == (torch.bfloat16, torch.long)
    mixed = make_precision("fp16_autocast", cpu)
    assert (mixed.weights, mixed.compute, mixed.scales_loss) == (torch.float32, torch.float16, True)
    assert not make_precision("fp32", cpu).scales_loss

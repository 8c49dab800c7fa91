"""Learning rates that the optimizer's parameter groups get at each step of a training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.plugins.settings import MethodTraining
from bench.spec.sections import TrainSettings
from bench.training.optimizer import ParamGroup, make_groups, make_optimizer, make_schedule
from tests.golden import kept

SCHEDULES = ("constant", "cosine", "cosine_per_epoch", "one_cycle", "polynomial")
PLANS: dict[str, dict[str, Any]] = {
    "20 steps": {"steps": 20},
    "20 steps, warmup": {"steps": 20, "warmup_steps": 5},
    "20 steps, warmup, min_lr": {"steps": 20, "warmup_steps": 4, "min_lr": 1e-4},
    "20 steps, warmup longer": {"steps": 20, "warmup_steps": 30},
    "3 epochs, accumulated": {"epochs": 3, "gradient_accumulation_steps": 2, "min_lr": 1e-5},
    "1 step": {"steps": 1},
}
"""Of 65 examples in batches of 10: seven batches an epoch, the last smaller."""


def rates(given: dict[str, Any], own: tuple[MethodTraining, ...] = ()) -> list[list[float]]:
    """Of each step the rate of each parameter group: the common one, then those of ``own``."""
    settings = TrainSettings.model_validate({"batch_size": 10, "optimizer": {"lr": 3e-3}} | given)
    trained = [torch.nn.Parameter(torch.zeros(1)) for _ in range(1 + len(own))]
    special = [ParamGroup(parameters=[p], training=training) for p, training in zip(trained[1:], own, strict=True)]
    optimizer = make_optimizer(
        settings.optimizer, make_groups(settings.optimizer, trained, special), torch.device("cpu")
    )
    schedule, found = make_schedule(settings, 65), []
    scheduler = schedule.attach(optimizer)
    for _ in range(schedule.steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def test_rates() -> None:
    schema = TrainSettings.model_json_schema()["properties"]["schedule"]
    assert set(schema["enum"]) == set(SCHEDULES)
    found = {
        schedule: {name: [rate for (rate,) in rates(given | {"schedule": schedule})] for name, given in PLANS.items()}
        for schedule in SCHEDULES
    }
    own = MethodTraining(lr=1e-2), MethodTraining(weight_decay=0.1)
    for schedule in SCHEDULES:
        given = {"steps": 20, "warmup_steps": 4, "schedule": schedule}
        for place, of_group in enumerate(zip(*rates(given, own), strict=True)):
            found[schedule][f"of 3 groups, {place}"] = list(of_group)
    content = kept("rates.json", found)
    assert {schedule: list(plans) for schedule, plans in found.items()} == {s: list(p) for s, p in content.items()}
    for schedule, plans in content.items():
        for name, expected in plans.items():
            assert found[schedule][name] == pytest.approx(expected, rel=1e-12, abs=0), (schedule, name)

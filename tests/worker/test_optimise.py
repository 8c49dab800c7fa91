"""Learning-rate schedules, step counts, precisions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.errors import BenchError
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.training.device import forbid_tf32, make_precision
from bench.training.optimizer import Schedule, make_optimizer, make_schedule


def plan(examples: int = 40, **settings: Any) -> Schedule:
    base: dict[str, Any] = {"batch_size": 10, "optimizer": {"lr": 1.0}}
    return make_schedule(TrainSettings.model_validate(base | settings), examples)


def rates(made: Schedule) -> list[float]:
    return [made.rate(step) for step in range(made.steps)]


def test_epochs_count_the_smaller_last_batch() -> None:
    assert plan(examples=41, epochs=3).steps == 15
    assert plan(examples=41, steps=7).steps == 7


def test_a_step_takes_the_batches_it_accumulates() -> None:
    made = plan(examples=41, epochs=3, gradient_accumulation_steps=2, schedule="cosine_per_epoch")
    assert (made.steps, made.steps_per_epoch) == (9, 3)
    assert rates(made) == pytest.approx([1.0] * 3 + [0.75] * 3 + [0.25] * 3)


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


def test_polynomial_is_a_straight_line_after_the_warmup() -> None:
    made = plan(steps=6, schedule="polynomial", warmup_steps=2, min_lr=0.2)
    assert rates(made) == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4])


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
    placed = make_precision("bf16", cpu).to_device(images)
    assert (placed["pixel_values"].dtype, placed["input_ids"].dtype) == (torch.bfloat16, torch.long)
    mixed = make_precision("fp16_autocast", cpu)
    assert (mixed.weights, mixed.compute, mixed.scales_loss) == (torch.float32, torch.float16, True)
    assert not make_precision("fp32", cpu).scales_loss


def optimizer_settings(**changes: Any) -> OptimizerSettings:
    return OptimizerSettings.model_validate({"lr": 0.1} | changes)


def steps_of(settings: OptimizerSettings, device: str = "cpu") -> torch.Tensor:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(100, 50, device=device))
    optimizer = make_optimizer(settings, [weight], torch.device(device))
    for _ in range(3):
        optimizer.zero_grad()
        (weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("implementation", ["foreach", "fused", "for_loop"])
def test_implementations_differ_in_speed_alone(name: str, implementation: str) -> None:
    default = steps_of(optimizer_settings(name=name))
    torch.testing.assert_close(steps_of(optimizer_settings(name=name, implementation=implementation)), default)
    group = make_optimizer(
        optimizer_settings(name=name, implementation=implementation), [torch.nn.Parameter(default)], torch.device("cpu")
    ).param_groups[0]
    assert (group["foreach"], group["fused"]) == {
        "foreach": (True, None),
        "fused": (None, True),
        "for_loop": (False, None),
    }[implementation]


def test_momentum_is_of_sgd() -> None:
    assert not torch.equal(
        steps_of(optimizer_settings(name="sgd", momentum=0.9)), steps_of(optimizer_settings(name="sgd"))
    )
    with pytest.raises(ValidationError, match="momentum is of sgd, not of adamw"):
        optimizer_settings(momentum=0.9)


def test_adamw_8bit_without_bitsandbytes_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BenchError, match=r'pip install "peft-freeze-bench\[8bit\]"'):
        steps_of(optimizer_settings(name="adamw_8bit"))
    with pytest.raises(ValidationError, match="adamw_8bit has its own"):
        optimizer_settings(name="adamw_8bit", implementation="fused")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_adamw_8bit_keeps_moments_of_one_byte(device: str) -> None:
    pytest.importorskip("bitsandbytes", reason="the [8bit] extra is not installed")
    weight = torch.nn.Parameter(torch.ones(100, 50, device=device))
    optimizer = make_optimizer(optimizer_settings(name="adamw_8bit"), [weight], torch.device(device))
    (weight**2).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moments = {name: optimizer.state[weight][name] for name in ("state1", "state2")}
    assert {(t.dtype, t.device.type, t.shape) for t in moments.values()} == {(torch.uint8, device, weight.shape)}
    if device == "cpu":
        torch.testing.assert_close(weight.detach(), torch.full((100, 50), 0.9), rtol=1e-3, atol=0)


@pytest.fixture
def tf32_as_before() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("tf32_as_before")
def test_fp32_is_fp32_for_cudnn_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    forbid_tf32(torch.device("cuda"))
    cudnn: Any = torch.backends.cudnn
    kinds = cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul
    assert all(kind.fp32_precision != "tf32" for kind in kinds)
    with torch.backends.cudnn.flags(enabled=True):
        """Which reads the older names of the switches, and fails where they were set by the newer."""


@pytest.mark.usefixtures("tf32_as_before")
def test_an_environment_that_forces_tf32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(BenchError, match=r"NVIDIA_TF32_OVERRIDE=1 .* unset it, or set it to 0"):
        forbid_tf32(torch.device("cuda"))
    forbid_tf32(torch.device("cpu"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    forbid_tf32(torch.device("cuda"))

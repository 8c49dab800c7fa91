"""Learning-rate schedules, parameter groups, optimizers and precisions; ``tests/golden`` keeps all rates."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bench.errors import BenchError
from bench.plugins.settings import MethodTraining
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.training.device import forbid_tf32, make_precision
from bench.training.optimizer import ParamGroup, Schedule, make_groups, make_optimizer, make_schedule

CPU = torch.device("cpu")


def schedule(examples: int = 40, **settings: Any) -> Schedule:
    base: dict[str, Any] = {"batch_size": 10, "optimizer": {"lr": 1.0}}
    return make_schedule(TrainSettings.model_validate(base | settings), examples)


def rates(made: Schedule) -> list[float]:
    return [made.rate(step) for step in range(made.steps)]


def test_epochs_count_the_smaller_last_batch() -> None:
    assert schedule(examples=41, epochs=3).steps == 15
    assert schedule(examples=41, steps=7).steps == 7


def test_a_step_takes_the_batches_it_accumulates() -> None:
    made = schedule(examples=41, epochs=3, gradient_accumulation_steps=2, schedule="cosine_per_epoch")
    assert (made.steps, made.steps_per_epoch) == (9, 3)
    assert rates(made) == pytest.approx([1.0] * 3 + [0.75] * 3 + [0.25] * 3)


@pytest.mark.parametrize("steps", [10, 37])
@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_a_schedule_equals_the_one_of_torch(kind: str, steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference: Any = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        if kind == "cosine"
        else torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    )
    for step, rate in enumerate(rates(schedule(steps=steps, schedule=kind))):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            reference.step()


def test_groups_have_the_rate_and_decay_of_their_method() -> None:
    a, b, c = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    settings = OptimizerSettings(name="sgd", lr=0.1, weight_decay=0.5)
    special = [
        ParamGroup(parameters=[b], training=MethodTraining(lr=0.4, weight_decay=0.0)),
        ParamGroup(parameters=[b, c], training=MethodTraining(lr=0.2)),
    ]
    optimizer = make_optimizer(settings, make_groups(settings, [a, b, c], special), CPU)
    train = TrainSettings(steps=4, batch_size=1, warmup_steps=2, optimizer=settings)
    make_schedule(train, 4).attach(optimizer)  # begins with half of the peak
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2, 0.1])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1], "a shared tensor is trained once"
    for p in (a, b, c):
        p.grad = torch.ones(2)
    optimizer.step()
    assert [1 - float(p[0]) for p in (a, b, c)] == pytest.approx([0.05 * 1.5, 0.2, 0.1 * 1.5])


def optimizer_settings(**changes: Any) -> OptimizerSettings:
    return OptimizerSettings.model_validate({"lr": 0.1} | changes)


def steps_of(settings: OptimizerSettings) -> tuple[torch.optim.Optimizer, torch.Tensor]:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(100, 50))
    optimizer = make_optimizer(settings, [weight], CPU)
    for _ in range(3):
        optimizer.zero_grad()
        (weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return optimizer, weight


def test_optimizer_takes_the_settings() -> None:
    optimizer, _ = steps_of(optimizer_settings(lr=0.5, weight_decay=0.05, betas=[0.8, 0.9]))
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (0.5, 0.05, (0.8, 0.9))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize(
    ("implementation", "kernels"),
    [("foreach", (True, None)), ("fused", (None, True)), ("for_loop", (False, None))],
)
def test_implementations_differ_in_speed_alone(name: str, implementation: str, kernels: tuple[Any, Any]) -> None:
    optimizer, weight = steps_of(optimizer_settings(name=name, implementation=implementation))
    torch.testing.assert_close(weight, steps_of(optimizer_settings(name=name))[1])
    assert (optimizer.param_groups[0]["foreach"], optimizer.param_groups[0]["fused"]) == kernels


def test_momentum_is_of_sgd() -> None:
    _, plain = steps_of(optimizer_settings(name="sgd"))
    assert not torch.equal(steps_of(optimizer_settings(name="sgd", momentum=0.9))[1], plain)
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


@pytest.mark.parametrize(
    ("name", "weights", "scales"),
    [
        ("fp32", torch.float32, False),
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, False),
        ("bf16_autocast", torch.float32, False),
        ("fp16_autocast", torch.float32, True),
    ],
)
def test_precisions(name: str, weights: torch.dtype, scales: bool) -> None:
    precision = make_precision(name, CPU)
    assert (precision.weights, precision.scales_loss) == (weights, scales)
    moved = precision.to_device({"image": torch.zeros(1), "ids": torch.zeros(1, dtype=torch.long)})
    assert (moved["image"].dtype, moved["ids"].dtype) == (weights, torch.long)


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
        """Reads the older names of the switches, and fails where they were set by the newer."""


@pytest.mark.usefixtures("tf32_as_before")
def test_an_environment_that_forces_tf32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(BenchError, match=r"NVIDIA_TF32_OVERRIDE=1 .* unset it, or set it to 0"):
        forbid_tf32(torch.device("cuda"))
    forbid_tf32(torch.device("cpu"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    forbid_tf32(torch.device("cuda"))

"""Steps of the trainer: on a CPU equal to plain training, on meta by the kernels of CUDA; AdaLoRA's own demands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from bench.estimate.autocast import autocast_on_meta
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.training.adapt import method_groups
from bench.training.data import Batch, load_data, task_of, training_batches
from bench.training.device import make_precision
from bench.training.optimizer import make_schedule
from bench.training.train import OrthogonalRegularizer, Trainer
from bench.worker.run import run_cell
from tests.training.conftest import Build, Make
from tests.training.runs import CPU

# --- on a CPU --------------------------------------------------------------------------------------------------


def trained(build: Build, cell: Cell, *, dropout: bool = True) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of all steps, and the trained tensors after them."""
    data = load_data(cell.data)
    model, _ = build(cell, "cpu", tuple(data.source.texts()))
    model.module.train(dropout)
    schedule = make_schedule(cell.train, len(data.train))
    groups = method_groups(model, cell.parts, cell.methods)
    trainer = Trainer(model, model.loss, schedule, make_precision(cell.train.precision, CPU), groups)
    batches = training_batches(data, model, task_of(cell), cell.train, steps=schedule.steps, seed=cell.seed)
    torch.manual_seed(cell.seed)
    losses = [trainer.step(step, group).item() for step, group in enumerate(batches)]
    return losses, {name: p.detach() for name, p in model.module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("zero_grad", ["before_forward", "before_backward"])
def test_accumulating_equals_one_large_batch_also_where_the_last_is_smaller(
    make_cell: Make, build: Build, zero_grad: str
) -> None:
    """34 examples: an epoch of two steps, of 6 + 6 + 6 and of 6 + 6 + 4."""
    shared = {"steps": None, "epochs": 2, "zero_grad": zero_grad, "optimizer": {"name": "sgd", "lr": 0.1}}
    common: dict[str, Any] = {"parts": {"vit": "T", "jtm": "T", "dec": "T"}, "data": {"train_limit": 34}}
    large = trained(build, make_cell(**common, train={**shared, "batch_size": 18}))
    accumulated = {**shared, "batch_size": 6, "gradient_accumulation_steps": 3}
    small = trained(build, make_cell(**common, train=accumulated))
    assert len(large[0]) == 4
    assert small[0] == pytest.approx(large[0], rel=1e-5)
    torch.testing.assert_close(small[1], large[1], rtol=1e-4, atol=1e-6)


def test_checkpointing_trains_to_the_same_weights(make_cell: Make, build: Build) -> None:
    common: dict[str, Any] = {
        "methods": {"P": {"type": "prefix", "num_virtual_tokens": 4}, "LoRA": {"type": "lora", "r": 4}},
        "parts": {"vit": "T", "jtm": "LoRA", "dec": "P"},
    }
    plain = trained(build, make_cell(**common))
    checkpointed = trained(build, make_cell(**common, train={"gradient_checkpointing": True}))
    assert checkpointed[0] == pytest.approx(plain[0], rel=1e-5)
    torch.testing.assert_close(checkpointed[1], plain[1], rtol=1e-3, atol=1e-5)


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
    record = run_cell(make_cell(model={"attention": "sdpa"}, train=changes), tmp_path)
    assert (record.status, record.error, record.steps) == (Status.OK, None, 6)
    assert [point.step for point in record.loss_curve] == list(range(6))
    assert record.time.train_s is not None
    samples = (record.time.samples_per_s or 0) * record.time.train_s
    assert samples == pytest.approx(2 * 40 - 16), "of 16, 16 and 8 an epoch, the first is not timed"


def test_a_method_is_trained_at_its_own_rate(make_cell: Make, build: Build) -> None:
    def weights(steps: int, rate: float | None) -> dict[str, torch.Tensor]:
        optimizer = {"name": "sgd", "lr": 0.5 if steps else 1e-30}
        method = {"type": "bitfit", **({"train": {"lr": rate}} if rate else {})}
        train = {"steps": 1, "optimizer": optimizer, "schedule": "constant"}
        cell = make_cell(parts={"vit": "F", "jtm": "M", "dec": "T"}, methods={"M": method}, train=train)
        return trained(build, cell, dropout=False)[1]

    start, plain, faster = weights(0, None), weights(1, None), weights(1, 1.5)
    for name, before in start.items():
        share = 3.0 if name.startswith("text_encoder") else 1.0
        torch.testing.assert_close(faster[name] - before, share * (plain[name] - before), rtol=1e-3, atol=1e-6)
    assert any(name.startswith("text_encoder") and not torch.equal(plain[name], start[name]) for name in start)


# --- AdaLoRA ---------------------------------------------------------------------------------------------------


def test_adaptive_methods_move_their_rank(make_cell: Make, build: Build) -> None:
    """AdaLoRA starts every layer at init_r and prunes to target_r on average, if it is told of each step."""
    method = {"peft_type": "ADALORA", "init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 1, "total_step": 5}
    train = {"steps": 5, "optimizer": {"lr": 1e-2}}
    cell = make_cell(parts={"vit": "F", "jtm": "M", "dec": "T"}, methods={"M": method}, train=train)
    _, weights = trained(build, cell, dropout=False)
    ranks = [int((p != 0).sum()) for name, p in weights.items() if "lora_E" in name]
    assert sum(ranks) < 4 * len(ranks), "nothing was pruned"


WEIGHT = 0.5


def adalora(**changes: Any) -> AdaLoraConfig:
    return AdaLoraConfig(init_r=4, target_r=2, total_step=10, orth_reg_weight=WEIGHT, **changes)


def orthogonality(module: nn.Module) -> torch.Tensor:
    """The mean distance of P'P and QQ' from the identity (Zhang et al. 2023, eq. 4, each by its Frobenius norm)."""
    factors = [(name, p) for name, p in module.named_parameters() if "lora_A" in name or "lora_B" in name]
    squares = [p @ p.T if "lora_A" in name else p.T @ p for name, p in factors]
    return torch.stack([(square - torch.eye(len(square))).norm() for square in squares]).mean()


@pytest.fixture
def part() -> Any:
    torch.manual_seed(0)
    return get_peft_model(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)), adalora(target_modules=["0", "1"]))


def test_a_part_without_a_loss_has_the_term_added(part: Any) -> None:
    regularizer = OrthogonalRegularizer(nn.ModuleDict({"encoder": part, "head": nn.Linear(3, 2)}))
    for _ in range(2):
        regularizer.begin()
        loss = part(torch.ones(2, 8)).square().mean()
        total = regularizer.add_to(loss)
        torch.testing.assert_close(total, loss + WEIGHT * orthogonality(part))
    total.backward()  # type: ignore[no-untyped-call]
    gradient = next(p.grad for name, p in part.named_parameters() if "lora_B" in name)
    assert gradient.abs().sum() > 0


def test_what_the_library_has_added_is_not_added_again() -> None:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    plain = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes))
    model: Any = get_peft_model(plain, adalora(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    regularizer, tokens = OrthogonalRegularizer(model), torch.arange(6)[None]
    regularizer.begin()
    with_labels = model(input_ids=tokens, labels=tokens).loss
    assert regularizer.add_to(with_labels) is with_labels
    regularizer.begin()
    logits = model(input_ids=tokens).logits
    bare = nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:])
    torch.testing.assert_close(regularizer.add_to(bare), with_labels)


def test_other_methods_and_a_weight_of_zero_add_nothing(part: Any) -> None:
    plain: Any = nn.Sequential(nn.Linear(8, 8))
    part.peft_config["default"].orth_reg_weight = 0.0
    for module in (get_peft_model(plain, LoraConfig(r=2, target_modules=["0"])), part):
        loss = torch.tensor(1.0)
        assert OrthogonalRegularizer(module).add_to(loss) is loss


# --- on meta: what the estimate stands on ------------------------------------------------------------------------


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


def steps_on_meta(build: Build, cell: Cell, steps: int = 2, micro_batches: int = 1) -> tuple[Counter[str], Trainer]:
    model, _ = build(cell, "meta")
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
def test_every_precision_updates_and_clips(make_cell: Make, build: Build, precision: str) -> None:
    seen, trainer = steps_on_meta(build, make_cell(train={"precision": precision, "gradient_clip": 1.0}))
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
    make_cell: Make, build: Build, implementation: str, kernel: str
) -> None:
    optimizer = {"lr": 1e-3, "implementation": implementation}
    seen, trainer = steps_on_meta(build, make_cell(train={"optimizer": optimizer}))
    assert {"_foreach_addcdiv_", "addcdiv_", "_fused_adamw_"} & seen.keys() == {kernel}
    assert seen[kernel] == 2 * (len(trainer._trained) if implementation == "for_loop" else 1)


def test_each_micro_batch_goes_through_before_one_update(make_cell: Make, build: Build) -> None:
    seen, _ = steps_on_meta(build, make_cell(), steps=1, micro_batches=3)
    alone, _ = steps_on_meta(build, make_cell(), steps=1)
    assert seen["native_layer_norm_backward"] == 3 * alone["native_layer_norm_backward"] > 0
    assert seen["_foreach_addcdiv_"] == 1


@pytest.mark.parametrize("method", ["lora", "ia3", "prefix", "ptuning_v2"])
def test_checkpointing_runs_every_layer_forward_twice(make_cell: Make, build: Build, method: str) -> None:
    cell: dict[str, Any] = {"parts": {"vit": "T", "jtm": "M", "dec": "M"}, "methods": {"M": {"type": method}}}
    plain, _ = steps_on_meta(build, make_cell(**cell))
    twice, _ = steps_on_meta(build, make_cell(**cell, train={"gradient_checkpointing": True}))
    assert twice["native_layer_norm"] > plain["native_layer_norm"]
    assert twice["native_layer_norm_backward"] == plain["native_layer_norm_backward"]

"""Methods that cannot work are refused before anything is loaded; those with a rate of their own are trained at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import BenchError
from bench.plugins.settings import MethodTraining
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.spec.sections import OptimizerSettings, TrainSettings
from bench.training.adapt import adapt, check_on_meta, method_groups
from bench.training.audit import check_frozen
from bench.training.data import load_data, task_of, training_batches
from bench.training.device import make_precision
from bench.training.optimizer import ParamGroup, make_groups, make_optimizer, make_schedule
from bench.training.train import Trainer
from bench.worker import run
from tests import factories

Make = Callable[..., Cell]
CPU = torch.device("cpu")
CONVOLUTION = {"V": {"peft_type": "VERA", "targets": {"vit": ["patch_embedding"]}}}


def test_a_method_that_cannot_be_put_on_its_part_is_refused_before_anything_is_loaded(
    make_cell: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(parts={"vit": "V", "jtm": "F", "dec": "F"}, methods=CONVOLUTION)
    with pytest.raises(BenchError, match=r"method V cannot be put on part vit: .*(not supported|No layers)"):
        check_on_meta(cell)

    def never(*_: Any) -> None:
        raise AssertionError("data was loaded")

    monkeypatch.setattr(run, "load_data", never)
    record = run.run_cell(cell, tmp_path)
    assert (record.status, record.error and record.error.phase) == (Status.ERROR, "setup")
    assert record.error is not None
    assert "method V cannot be put on part vit" in record.error.message


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"peft_type": "LOHA", "targets": {"jtm": ["querry"]}}, "querry"),
        ({"peft_type": "C3A", "block_size": 7}, "block size should be a factor"),
        ({"peft_type": "ADALORA"}, "total_step"),
        ({"type": "bitfit", "targets": {"jtm": ["querry"]}}, "nearest: query"),
        ({"type": "last_blocks", "k": 9}, "method M cannot be put on part jtm: (k is 9, but|no stack)"),
        ({"peft_type": "ADAPTION_PROMPT", "adapter_len": 4, "adapter_layers": 1}, "choose another method"),
    ],
)
def test_the_message_says_what_is_wrong(make_cell: Make, method: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        check_on_meta(make_cell(parts={"vit": "F", "jtm": "M", "dec": "F"}, methods={"M": method}))


def test_a_method_that_computes_from_the_weights_is_left_to_the_run(make_cell: Make) -> None:
    """FRoD decomposes the weights, which meta tensors have none of."""
    method = {"M": {"peft_type": "FROD"}}
    check_on_meta(make_cell(parts={"vit": "F", "jtm": "M", "dec": "F"}, methods=method))


def test_the_check_leaves_the_random_numbers_of_a_run_alone(make_cell: Make) -> None:
    cell = make_cell()
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    plugin = factories.plugin("models", cell.model.family)
    plugin.build(cell.model, texts=["yes no"], device="meta")
    assert torch.equal(torch.rand(1), first)


def test_adapters_of_several_kinds_on_several_parts(make_cell: Make) -> None:
    methods = {
        "L": {"type": "lora", "r": 2, "modules_to_save": {"vit": ["post_layernorm"]}},
        "V": {"peft_type": "VERA", "r": 4, "target_modules": ["query"]},
        "B": {"type": "bitfit"},
    }
    parts = {"vit": "L", "jtm": "V", "dec": "B"}
    cell = make_cell(parts=parts, methods=methods)
    plugin = factories.plugin("models", cell.model.family)
    model = plugin.build(cell.model, texts=["yes no"], device="cpu")
    adapted = adapt(model, plugin.PARTS, parts, cell.methods)
    check_frozen(model, parts, adapted)
    assert any("modules_to_save" in name for name in adapted["vit"].names)
    assert all("vera_lambda" in name and "query" in name for name in adapted["jtm"].names)
    assert all(name.endswith("bias") for name in adapted["dec"].names)


def test_groups_have_the_rate_and_decay_of_their_method() -> None:
    a, b, c = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    settings = OptimizerSettings(name="sgd", lr=0.1, weight_decay=0.5)
    own = [
        ParamGroup(parameters=[b], training=MethodTraining(lr=0.4, weight_decay=0.0)),
        ParamGroup(parameters=[b, c], training=MethodTraining(lr=0.2)),
    ]
    optimizer = make_optimizer(settings, make_groups(settings, [a, b, c], own), CPU)
    train = TrainSettings(steps=4, batch_size=1, warmup_steps=2, optimizer=settings)
    make_schedule(train, 4).attach(optimizer)  # half of the peak
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2, 0.1])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1], "a shared tensor is trained once"
    for p in (a, b, c):
        p.grad = torch.ones(2)
    optimizer.step()
    moved = [1 - float(p[0]) for p in (a, b, c)]
    assert moved == pytest.approx([0.05 * 1.5, 0.2, 0.1 * 1.5])


def stepped(make_cell: Make, method: dict[str, Any], **train: Any) -> tuple[Any, Trainer, dict[str, torch.Tensor]]:
    """A model after a step of SGD, and what every trained tensor moved by."""
    cell = make_cell(parts={"vit": "F", "jtm": "M", "dec": "T"}, methods={"M": method}, train=train)
    data = load_data(cell.data)
    plugin = factories.plugin("models", cell.model.family)
    torch.manual_seed(0)
    model = plugin.build(cell.model, texts=data.source.texts(), device="cpu")
    adapt(model, plugin.PARTS, cell.parts, cell.methods)
    model.module.eval()  # no dropout: two models shall differ in their rates alone
    before = {name: p.detach().clone() for name, p in model.module.named_parameters() if p.requires_grad}
    plan = make_schedule(cell.train, len(data.train))
    groups = method_groups(model, cell.parts, cell.methods)
    trainer = Trainer(model, model.loss, plan, make_precision("fp32", CPU), groups)
    batches = training_batches(data, model, task_of(cell), cell.train, steps=plan.steps, seed=0)
    for step, group in enumerate(batches):
        trainer.step(step, group)
    return model, trainer, {name: model.module.get_parameter(name).detach() - old for name, old in before.items()}


def test_a_method_is_trained_at_its_own_rate(make_cell: Make) -> None:
    sgd = {"steps": 1, "optimizer": {"name": "sgd", "lr": 0.5}, "schedule": "constant"}
    bitfit = {"type": "bitfit"}
    _, _, plain = stepped(make_cell, bitfit, **sgd)
    _, _, faster = stepped(make_cell, {**bitfit, "train": {"lr": 1.5}}, **sgd)
    for name, moved in plain.items():
        share = 3.0 if name.startswith("text_encoder") else 1.0
        torch.testing.assert_close(faster[name], share * moved, rtol=1e-3, atol=1e-6)
    assert any(name.startswith("text_encoder") and moved.abs().max() > 1e-5 for name, moved in plain.items())


def test_adaptive_methods_move_their_rank(make_cell: Make) -> None:
    """AdaLoRA starts every layer at init_r and prunes to target_r on average, if it is told of each step."""
    method = {"peft_type": "ADALORA", "init_r": 4, "target_r": 1, "tinit": 1, "tfinal": 1, "total_step": 5}
    model, _, _ = stepped(make_cell, method, steps=5, optimizer={"lr": 1e-2})
    kept = [p for name, p in model.module.named_parameters() if "lora_E" in name]
    ranks = [int((p != 0).sum()) for p in kept]
    assert sum(ranks) < 4 * len(ranks), "nothing was pruned"


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ({"peft_type": "VERA", "r": 8, "train": {"lr": 1e-2}}, {"type": "bitfit"}),
        ({"peft_type": "RANDLORA", "r": 4}, {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}),
        ({"peft_type": "FROD"}, {"peft_type": "LN_TUNING", "target_modules": ["LayerNorm"]}),
    ],
)
def test_a_whole_run_counts_what_its_estimate_counts(
    make_cell: Make, tmp_path: Path, method: dict[str, Any], other: dict[str, Any]
) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": "M", "dec": "O"}, methods={"M": method, "O": other})
    record = run.run_and_estimate(cell, tmp_path, tmp_path / "result.json")
    assert (record.status, record.error) == (Status.OK, None)
    assert record.estimate is not None
    assert record.estimate.params == record.params
    assert record.estimate.adapter_bytes == record.adapter_bytes


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "jtm"),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 3, "encoder_hidden_size": 8}, "jtm"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 3, "num_tasks": 2}, "jtm"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 3}, "dec"),
        ({"peft_type": "POLY", "r": 2, "n_tasks": 2}, "vit"),
        ({"peft_type": "POLY", "r": 2}, "dec"),
        ({"peft_type": "LN_TUNING"}, "vit"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["peft_type"],
)
def test_a_cell_runs_to_its_end(make_cell: Make, tmp_path: Path, method: dict[str, Any], part: str) -> None:
    """Methods whose library wants more of its caller than others: ids of tasks, a mask for virtual tokens, targets."""
    parts = {"vit": "F", "jtm": "F", "dec": "F"} | {part: "M"}
    cell = make_cell(parts=parts, methods={"M": method}, train={"steps": 2}, data={"train_limit": 16, "test_limit": 4})
    record = run.run_cell(cell, tmp_path)
    assert record.status is Status.OK, record.error
    assert record.params is not None
    assert record.params.by_part[part].trainable == record.params.trainable > 0

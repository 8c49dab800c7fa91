"""The audit finds what is frozen or trained against the pattern, and tensors that take no part in the loss."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from bench.errors import AuditError
from bench.plugins.contracts import BenchModel, Task
from bench.spec.cell import Cell
from bench.spec.sections import DEFAULT_TASK, EvaluateSettings
from bench.training.adapt import AppliedMethod, adapt
from bench.training.audit import check_frozen, check_gradients
from bench.training.data import LoadedData, load_data
from tests import factories

Make = Callable[..., Cell]

VQA: Task = factories.plugin("tasks", "generative_vqa").create(DEFAULT_TASK, EvaluateSettings(batch_size=4), [])


@pytest.fixture(scope="module")
def data() -> LoadedData:
    """The embedded data set."""
    from bench.datasets.easy_vqa import EasyVqaSettings

    return load_data(EasyVqaSettings(name="easy_vqa", train_limit=8, test_limit=8))


def adapted(cell: Cell, device: str = "cpu") -> tuple[BenchModel, dict[str, AppliedMethod]]:
    plugin = factories.plugin("models", cell.model.family)
    model: BenchModel = plugin.build(cell.model, texts=["what shape is it yes no"], device=device)
    return model, adapt(model, plugin.PARTS, cell.parts, cell.methods)


def first_backward(model: BenchModel, data: LoadedData) -> None:
    batch = data.training_batch(model, VQA, data.train, random.Random(0))
    VQA.loss(model, batch.tensors).backward()  # type: ignore[no-untyped-call]


METHODS = {
    "LoRA": {"type": "lora", "r": 4},
    "Biased": {"type": "lora", "r": 4, "bias": "lora_only"},
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix"},
    "P-Tuning v2": {"type": "ptuning_v2"},
}


@pytest.mark.parametrize(
    "actions",
    [
        ("F", "F", "T"),
        ("T", "T", "T"),
        ("T", "F", "F"),
        ("LoRA", "IA3", "Prefix"),
        ("IA3", "Prefix", "P-Tuning v2"),
        ("F", "P-Tuning v2", "LoRA"),
        ("F", "Biased", "F"),
    ],
)
def test_every_action_passes_and_every_trained_tensor_has_a_gradient(
    make_cell: Make, data: LoadedData, actions: tuple[str, str, str]
) -> None:
    parts = dict(zip(("vit", "jtm", "dec"), actions, strict=True))
    used = {name: METHODS[name] for name in actions if name in METHODS}
    model, adapters = adapted(make_cell(parts=parts, methods=used))
    check_frozen(model, parts, adapters)
    first_backward(model, data)
    check_gradients(model)


def test_a_frozen_part_that_trains_is_found(make_cell: Make) -> None:
    cell = make_cell()
    model, adapters = adapted(cell)
    next(model.part("vit").parameters()).requires_grad_(True)
    with pytest.raises(AuditError, match=r"part vit is frozen \(F\), yet trains .*class_embedding"):
        check_frozen(model, cell.parts, adapters)


def test_a_trained_part_that_is_frozen_is_found(make_cell: Make) -> None:
    cell = make_cell()
    model, adapters = adapted(cell)
    model.part("dec").requires_grad_(False)
    with pytest.raises(AuditError, match=r"part dec is trained \(T\), yet keeps frozen .* and \d+ more"):
        check_frozen(model, cell.parts, adapters)


def test_a_base_tensor_that_trains_beside_an_adapter_is_found(make_cell: Make) -> None:
    cell = make_cell()
    model, adapters = adapted(cell)
    weight = next(n for n, _ in model.part("jtm").named_parameters() if "word_embeddings" in n)
    model.part("jtm").get_parameter(weight).requires_grad_(True)
    with pytest.raises(
        AuditError, match=r"part jtm has LoRA, yet trains tensors of the model itself: .*word_embeddings"
    ):
        check_frozen(model, cell.parts, adapters)


@pytest.mark.parametrize("names", ["", "lora_A"])
def test_a_frozen_adapter_is_found(make_cell: Make, names: str) -> None:
    cell = make_cell()
    model, adapters = adapted(cell)
    for name, parameter in model.part("jtm").named_parameters():
        if names in name:
            parameter.requires_grad_(False)
    with pytest.raises(AuditError, match=r"part jtm.*(trains nothing|adapter tensors of LoRA are frozen)"):
        check_frozen(model, cell.parts, adapters)


def test_an_adapter_that_was_never_put_on_is_found(make_cell: Make) -> None:
    cell = make_cell()
    model, _ = adapted(make_cell(parts={"vit": "F", "jtm": "F", "dec": "T"}, methods={}))
    with pytest.raises(AuditError, match="part jtm: no adapter of LoRA"):
        check_frozen(model, cell.parts, {})


def test_a_trained_tensor_outside_all_parts_is_found(make_cell: Make) -> None:
    cell = make_cell()
    model, adapters = adapted(cell)
    model.module.register_parameter("stray", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(AuditError, match="in no part of the freeze pattern: stray"):
        check_frozen(model, cell.parts, adapters)


def test_a_trained_tensor_without_a_gradient_is_found(make_cell: Make, data: LoadedData) -> None:
    model, _ = adapted(make_cell())
    model.part("dec").register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))
    first_backward(model, data)
    with pytest.raises(AuditError, match=r"without a gradient in the first step: text_decoder\.unused"):
        check_gradients(model)


def test_an_infinite_gradient_is_found_unless_a_scaler_handles_it(make_cell: Make, data: LoadedData) -> None:
    model, _ = adapted(make_cell())
    first_backward(model, data)
    weight = next(p for p in model.part("dec").parameters() if p.grad is not None)
    assert weight.grad is not None
    weight.grad.view(-1)[0] = float("inf")
    check_gradients(model, finite=False)
    with pytest.raises(AuditError, match="infinite gradient"):
        check_gradients(model)

"""The model an estimate is made of, and the file its adapters would fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.estimate import meta_run
from bench.estimate.estimator import Estimator, safetensors_bytes
from bench.estimate.meta_run import replace_tensors, tensors_of
from bench.spec.cell import Cell
from bench.training.adapt import adapt

Make = Callable[..., Cell]


def test_what_cannot_be_put_on_meta_is_built_on_the_cpu(make_cell: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result: only reserved memory may differ, as allocations come in another order."""
    cell = make_cell(parts={"vit": "LoRA", "jtm": "F", "dec": "T"})
    expected = Estimator().estimate(cell)
    devices: list[str] = []

    def needs_weights(model: object, *arguments: object) -> object:
        device = next(model.module.parameters()).device.type  # type: ignore[attr-defined]
        devices.append(device)
        if device == "meta":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        return adapt(model, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(meta_run, "adapt", needs_weights)
    found = Estimator().estimate(cell)
    assert devices == ["meta", "cpu"]
    assert found.params == expected.params
    assert found.adapter_bytes == expected.adapter_bytes
    assert found.flops == expected.flops
    assert found.memory is not None
    assert expected.memory is not None
    assert found.memory.train is not None
    assert expected.memory.train is not None
    assert found.memory.train.by_kind["weights"] == expected.memory.train.by_kind["weights"]
    assert found.memory.train.allocated_peak_bytes == expected.memory.train.allocated_peak_bytes


def test_a_tied_tensor_stays_one() -> None:
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    second.weight = first.weight
    first.bias.requires_grad_(False)
    both = torch.nn.Sequential(first, second)
    both.register_buffer("counts", torch.zeros(3, dtype=torch.int64))
    replace_tensors(both, lambda t: torch.empty_like(t, device="meta"))
    assert first.weight is second.weight
    assert first.weight.requires_grad
    assert not first.bias.requires_grad
    assert both.counts.dtype is torch.int64
    assert all(t.is_meta for t in both.state_dict().values())


def test_tensors_come_in_the_order_of_to() -> None:
    moved: list[int] = []
    module = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.BatchNorm1d(2))
    module.register_parameter("own", torch.nn.Parameter(torch.zeros(7)))
    ours = [t.numel() for t in tensors_of(module)]

    def note(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.numel())
        return tensor

    module._apply(note)  # type: ignore[no-untyped-call]
    assert ours == moved


@pytest.mark.parametrize("names", [["a"], ["layer.0.weight", "layer.10.weight", "ä", 'quoted"name']])
def test_the_size_of_a_safetensors_file(tmp_path: Path, names: list[str]) -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.int64, torch.float16]
    tensors = {name: torch.zeros(3, i + 1, dtype=dtypes[i % 4]) for i, name in enumerate(names)}
    file = tmp_path / "adapter.safetensors"
    save_file(tensors, file)
    assert safetensors_bytes(tensors) == file.stat().st_size

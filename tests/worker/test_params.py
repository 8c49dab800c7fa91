"""Parameter counts: on the adapted model, tied tensors once, alike on the meta device and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.plugins.contracts import BenchModel
from bench.records.costs import Params
from bench.spec.cell import Cell
from bench.training.adapt import adapt
from bench.training.params import count_params, stored_tensors, write_tensors
from tests import factories

Make = Callable[..., Cell]

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 4},
    "IA3": {"type": "ia3"},
    "Prefix": {"type": "prefix"},
    "P-Tuning v2": {"type": "ptuning_v2"},
}


def built(cell: Cell, device: str) -> tuple[BenchModel, dict[str, Any]]:
    plugin = factories.plugin("models", cell.model.family)
    model: BenchModel = plugin.build(cell.model, texts=["what shape is it yes no"], device=device)
    return model, adapt(model, plugin.PARTS, cell.parts, cell.methods)


def counted(cell: Cell, device: str) -> Params:
    model, adapters = built(cell, device)
    return count_params(model, cell.parts, adapters)


@pytest.mark.parametrize("method", METHODS)
def test_meta_and_cpu_agree_and_stored_is_what_is_written(make_cell: Make, tmp_path: Path, method: str) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": method, "dec": "T"}, methods={method: METHODS[method]})
    params = counted(cell, "cpu")
    assert counted(cell, "meta") == params
    model, adapters = built(cell, "cpu")
    tensors = stored_tensors(model, cell.parts, adapters)
    assert params.stored == sum(t.numel() for t in tensors.values())
    assert write_tensors(tmp_path / "adapter.safetensors", tensors) > 4 * params.stored


def test_a_prefix_trains_more_than_it_stores(make_cell: Make) -> None:
    cell = make_cell(parts={"vit": "F", "jtm": "Prefix", "dec": "F"}, methods={"Prefix": METHODS["Prefix"]})
    params = counted(cell, "meta")
    assert params.stored == 10 * 2 * 32  # tokens, keys and values, one layer of width 32
    assert params.trainable > params.stored


def test_parts_add_up_and_tied_tensors_count_once(make_cell: Make) -> None:
    cell = make_cell(parts={"vit": "T", "jtm": "T", "dec": "T"}, methods={})
    params = counted(cell, "cpu")
    assert sum(part.total for part in params.by_part.values()) == params.total
    assert params.trainable == params.stored == params.total
    assert params.pct == 100.0
    model, _ = built(cell, "cpu")
    names = [p for part in ("vit", "jtm", "dec") for _, p in model.part(part).named_parameters(remove_duplicate=False)]
    assert len(names) > len({id(p) for p in names}), "this family ties the decoder's head to its embedding"
    assert params.total == sum(p.numel() for p in {id(p): p for p in names}.values())


def test_a_tensor_shared_by_two_parts_belongs_to_the_first() -> None:
    shared = torch.nn.Linear(3, 2, bias=False)
    module = torch.nn.ModuleDict({"a": torch.nn.Sequential(shared), "b": torch.nn.Sequential(shared, torch.nn.ReLU())})

    class Two:
        def __init__(self) -> None:
            self.module = module

        def part(self, name: str) -> torch.nn.Module:
            return module[name]

    params = count_params(Two(), {"a": "T", "b": "T"}, {})  # type: ignore[arg-type]
    assert (params.total, params.stored, params.by_part["a"].total, params.by_part["b"].total) == (6, 6, 6, 0)

"""A cell small enough to train and evaluate within a second or two on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.spec.cell import Cell

CELL: dict[str, Any] = {
    "cell_id": "0123456789abcdef",
    "spec": "test",
    "scale": "demo",
    "label": "F-LoRA-T",
    "labels": {},
    "parts": {"vit": "F", "jtm": "LoRA", "dec": "T"},
    "seed": 42,
    "model": {
        "family": "miss",
        "preset": "tiny",
        "vision": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16},
        "text": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    },
    "data": {"name": "easy_vqa", "train_limit": 40, "test_limit": 10},
    "train": {"steps": 6, "batch_size": 8, "optimizer": {"lr": 1e-3}, "timing_warmup_steps": 2, "log_every": 2},
    "evaluate": {"batch_size": 4, "num_beams": 2, "max_new_tokens": 3},
    "methods": {"LoRA": {"type": "lora", "r": 4}},
    "run": {"device": "cpu", "threads": 1},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` put over it, mapping by mapping, except ``parts`` and ``methods``, which replace."""
    result = dict(base)
    for name, value in changes.items():
        inner = name not in ("parts", "methods") and isinstance(value, dict)
        result[name] = merged(base.get(name, {}), value) if inner else value
    return result


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """Build the small cell with changes: ``make_cell(train={"steps": 2})``."""
    return lambda **changes: Cell.model_validate(merged(CELL, changes))

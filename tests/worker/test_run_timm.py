"""Whole cells of image classifiers: every kind of freeze pattern is trained, scored, stored and estimated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.estimate.estimator import estimate
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.worker.run import run_cell
from tests.datasets.conftest import picture

Make = Callable[..., Cell]
MODELS: dict[str, dict[str, Any]] = {
    "vit": {
        "family": "timm",
        "architecture": "vit_tiny_patch16_224",
        "arguments": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
        "image": {"size": 16, "crop_pct": 1.0},
    },
    "resnet": {
        "family": "timm",
        "architecture": "resnet18",
        "arguments": {"channels": [8, 8, 16, 16]},
        "image": {"size": 32, "crop_pct": 1.0},
    },
}
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 2},
    "BitFit": {"type": "bitfit"},
    "AdaLoRA": {"type": "peft_config", "peft_type": "ADALORA", "total_step": 4, "init_r": 3, "target_r": 2},
    "IA3": {"type": "ia3"},
}
PATTERNS = ("T-T-T", "F-F-T", "F-LoRA-T", "LoRA-LoRA-LoRA", "F-BitFit-F", "F-AdaLoRA-T", "F-IA3-T")


def cell_of(make_cell: Make, model: str, pattern: str, **train: Any) -> Cell:
    base = make_cell(train={"steps": 4, **train}).model_dump(mode="json")
    parts = dict(zip(("stem", "blocks", "head"), pattern.split("-"), strict=True))
    changes: dict[str, Any] = {
        "task": {"name": "image_classification"},
        "model": MODELS[model],
        "data": {"name": "digits", "train_limit": 64, "test_limit": 20},
        "parts": parts,
        "methods": {name: METHODS[name] for name in parts.values() if name in METHODS},
    }
    return Cell.model_validate(base | changes)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("model", MODELS)
def test_a_cell_is_run_and_estimated(make_cell: Make, tmp_path: Path, model: str, pattern: str) -> None:
    cell = cell_of(make_cell, model, pattern)
    record = run_cell(cell, tmp_path)
    assert (record.status, record.error) == (Status.OK, None)
    assert record.params is not None
    found = estimate(cell)
    assert found.params == record.params
    assert found.refused == []
    assert found.memory is not None
    assert found.flops is not None


@pytest.mark.parametrize("model", MODELS)
def test_checkpointing_needs_less_memory(make_cell: Make, tmp_path: Path, model: str) -> None:
    peaks = []
    for checkpointing in (False, True):
        cell = cell_of(make_cell, model, "T-LoRA-T", gradient_checkpointing=checkpointing, batch_size=64)
        memory = estimate(cell).memory
        assert memory is not None
        assert memory.train is not None
        peaks.append(memory.train.allocated_peak_bytes)
    assert peaks[1] < peaks[0]
    assert run_cell(cell, tmp_path).status is Status.OK


def test_training_learns_the_digits(make_cell: Make, tmp_path: Path) -> None:
    base = cell_of(make_cell, "resnet", "T-T-T").model_dump(mode="json")
    base["data"] |= {"train_limit": 512, "test_limit": 100}
    base["train"] |= {"steps": 60, "batch_size": 32, "optimizer": {"lr": 1e-2}}
    record = run_cell(Cell.model_validate(base), tmp_path)
    accuracy = record.scores["accuracy"].value
    assert accuracy is not None
    assert accuracy > 0.5


def test_what_was_left_of_the_data_is_noted(make_cell: Make, tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        picture(tmp_path / "pets" / name / "0.jpg")
    frames = [Image.new("RGB", (8, 8), level) for level in ("red", "blue")]
    frames[0].save(tmp_path / "pets" / "test" / "dog" / "1.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "pets" / "test" / "dog" / "readme").write_text("dogs")
    base = cell_of(make_cell, "resnet", "F-F-T", steps=1, batch_size=2).model_dump(mode="json")
    base["data"] = {"name": "image_folder", "root": str(tmp_path / "pets")}
    record = run_cell(Cell.model_validate(base), tmp_path / "job")
    assert record.status is Status.OK
    first, second = record.notes or []
    assert first == "left out, as Pillow reads no image in it: 1 (1 without suffix) (e.g. test/dog/readme)"
    assert second.startswith("of images with several frames the first one is used")


def test_an_unknown_architecture_is_refused_before_anything_is_loaded(make_cell: Make, tmp_path: Path) -> None:
    cell = cell_of(make_cell, "resnet", "F-F-T")
    wrong = cell.model_copy(update={"model": cell.model.model_copy(update={"architecture": "resnet81"})})
    record = run_cell(wrong, tmp_path)
    assert record.error is not None
    assert (record.status, record.error.phase) == (Status.ERROR, "setup")
    assert "resnet18" in record.error.message

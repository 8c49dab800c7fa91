"""Whole cells of the family that learns its answers from the training examples, run and estimated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.estimate.estimator import estimate
from bench.models.ofa.network import Decoded, Decoder, Encoded
from bench.records.record import Status
from bench.spec.cell import Cell
from bench.training.data import load_data
from bench.worker.run import run_cell

Make = Callable[..., Cell]
SMALL = {"hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "resnet_channels": [8, 8, 8]}


def cell_of(make_cell: Make, parts: dict[str, str], **changes: Any) -> Cell:
    model = {"family": "ofa", "preset": "micro", "network": SMALL, **changes.pop("model", {})}
    base = make_cell(**changes).model_dump(mode="json")
    methods = {"LoRA": {"type": "lora", "r": 4}, "Prefix": {"type": "prefix", "num_virtual_tokens": 3}}
    kept = {name: method for name, method in methods.items() if name in parts.values()}
    return Cell.model_validate(base | {"model": model, "parts": parts, "methods": kept})


@pytest.mark.parametrize("parts", [{"encoder": "T", "decoder": "T"}, {"encoder": "F", "decoder": "Prefix"}])
def test_a_cell_is_trained_and_answers_as_it_was_taught(make_cell: Make, tmp_path: Path, parts: dict[str, str]) -> None:
    cell = cell_of(make_cell, parts)
    record = run_cell(cell, tmp_path)
    assert (record.status, record.error) == (Status.OK, None)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {line["prediction"] for line in lines} <= {example.answer for example in load_data(cell.data).train}
    assert record.params is not None
    assert estimate(cell).params == record.params


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_autocast"])
def test_costs_are_estimated_with_nothing_refused(make_cell: Make, attention: str, precision: str) -> None:
    train = {"precision": precision, "schedule": "polynomial"}
    cell = cell_of(make_cell, {"encoder": "T", "decoder": "LoRA"}, model={"attention": attention}, train=train)
    found = estimate(cell)
    assert found.refused == []
    assert found.memory is not None
    assert found.memory.train is not None
    assert found.memory.train.allocated_peak_bytes > 2**20
    assert found.assumed["constrain"] == "answers"


@pytest.mark.parametrize("constrain", ["answers", "none"])
def test_an_estimate_searches_to_the_last_step(
    make_cell: Make, constrain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, ids: torch.Tensor, encoded: Encoded, so_far: Decoded) -> Decoded:
        rows.append(len(ids))
        return step(self, ids, encoded, so_far)

    monkeypatch.setattr(Decoder, "step", counted)
    parts = {"encoder": "F", "decoder": "Prefix"}
    cell = cell_of(make_cell, parts, model={"constrain": constrain}, evaluate={"max_new_tokens": 7})
    assert estimate(cell).refused == []
    assert rows == [cell.evaluate.batch_size * cell.evaluate.num_beams] * 6, "the first token needs no step"


@pytest.mark.parametrize("method", ["LoRA", "Prefix"])
def test_bf16_weights_train_and_answer(make_cell: Make, tmp_path: Path, method: str) -> None:
    train = {"precision": "bf16", "gradient_checkpointing": True}
    record = run_cell(cell_of(make_cell, {"encoder": "F", "decoder": method}, train=train), tmp_path)
    assert (record.status, record.error) == (Status.OK, None)

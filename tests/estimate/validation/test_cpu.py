"""Small cases of the comparison with a real CPU's allocator; the gallery has the large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.estimate.validation import cases, cpu, pages
from bench.estimate.validation.cases import Case
from bench.records.costs import MEMORY_KINDS, PredictedPhase
from bench.spec.cell import Cell

Make = Callable[..., Cell]
WIDE: dict[str, Any] = {
    "vision": {"hidden_size": 96, "num_hidden_layers": 2, "patch_size": 8},
    "text": {"hidden_size": 96, "num_hidden_layers": 2, "dropout": 0.1, "max_position_embeddings": 64},
    "image": {"size": 64},
}
TRAINED = {"vit": "T", "jtm": "T", "dec": "T"}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"parts": TRAINED},
    "tied embedding, sgd": {
        "parts": {"vit": "F", "jtm": "F", "dec": "T"},
        "train": {"batch_size": 1, "optimizer": {"name": "sgd"}, "precision": "bf16_autocast"},
        "model": {"text": {"vocab_size": 4000}},
    },
    "adapters, bf16 autocast": {
        "parts": {"vit": "LoRA", "jtm": "IA3", "dec": "LoRA"},
        "methods": {"LoRA": {"type": "lora", "r": 4, "lora_dropout": 0.1}, "IA3": {"type": "ia3"}},
        "train": {"precision": "bf16_autocast"},
    },
    "prefix, checkpointing, accumulation": {
        "parts": {"vit": "T", "jtm": "Prefix", "dec": "Prefix"},
        "methods": {"Prefix": {"type": "prefix"}},
        "train": {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
    },
    "bf16, late zeroing, fused attention": {
        "parts": TRAINED,
        "train": {"precision": "bf16", "zero_grad": "before_backward"},
        "model": {"attention": "sdpa"},
    },
}


def small(make_cell: Make, name: str) -> Case:
    changes = SETTINGS[name]
    model = WIDE | changes.get("model", {})
    model["text"] = WIDE["text"] | changes.get("model", {}).get("text", {})
    optimizer = {"implementation": "foreach"} | changes.get("train", {}).get("optimizer", {})
    train = {"batch_size": 8} | changes.get("train", {}) | {"optimizer": {"lr": 1e-3} | optimizer}
    return cases.case_of(make_cell(**changes | {"model": model, "train": train}))


@pytest.mark.parametrize("name", SETTINGS)
def test_both_judges_agree_with_the_prediction(make_cell: Make, name: str) -> None:
    compared = cpu.compare(small(make_cell, name))
    assert compared.holds
    assert abs(compared.error) < cpu.LIMIT
    assert compared.followed == pytest.approx(compared.measured, rel=0.005)
    if name.startswith("tied"):
        assert compared.mem_tracker > 1.05 * compared.measured, "a case where MemTracker itself is too high"


def test_other_models_are_followed_as_well() -> None:
    case = next(case for case in cases.plain_models() if case.name.startswith("ViT, head only"))
    assert cpu.compare(case).holds


def test_a_prediction_that_is_off_does_not_hold() -> None:
    kinds = dict.fromkeys(MEMORY_KINDS, 0) | {"weights": 1000}
    phase = PredictedPhase(allocated_peak_bytes=1000, reserved_peak_bytes=1000, by_kind=kinds)
    compared = cpu.Compared(measured=1000, predicted=phase, followed=1000, mem_tracker=1100, out_of_place=1100)
    assert compared.holds
    assert not replace(compared, measured=1011).holds
    assert not replace(compared, measured=989).holds
    assert not replace(compared, mem_tracker=1101).holds


def test_there_are_enough_cases_of_every_kind() -> None:
    cells, models = cases.cells(), list(cases.plain_models())
    assert len(cells) + len(models) >= 12
    assert len({case.name for case in (*cells, *models)}) == len(cells) + len(models)
    found = [case.cell for case in cells if case.cell is not None]
    assert {cell.model.model_dump()["preset"] for cell in found} == {"base", "small", "tiny"}
    assert {method.type for cell in found for method in cell.methods.values()} >= {
        "lora",
        "ia3",
        "prefix",
        "ptuning_v2",
    }
    assert {case.settings.precision for case in cells} >= {"fp32", "bf16", "bf16_autocast"}
    assert {case.settings.optimizer.implementation for case in cells} == {"foreach", "for_loop", "fused"}


def test_the_page_says_what_did_not_hold() -> None:
    phase = {"allocated_peak_bytes": 2**30, "by_kind": dict.fromkeys(MEMORY_KINDS, 0) | {"weights": 2**29}}
    row = {
        "case": "a case",
        "model": "a model, random",
        "measured_bytes": 2**30,
        "predicted": phase,
        "followed_bytes": 2**30,
        "mem_tracker_bytes": 2**30 + 1,
        "predicted_out_of_place_bytes": 2**30,
        "error": 0.0,
        "holds": False,
    }
    text = pages.page("cpu", {"versions": {"torch": "2"}, "device": "cpu", "cpu": "a CPU"}, [row])
    assert "0 of 1 cases hold" in text
    assert "| a case (a model) | 1,024.0 | 1,024.0 | +0.0000 % | +0.0000 % | 1,024.0 | **differs** | 50 % |" in text

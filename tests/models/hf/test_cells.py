"""Whole cells of transformers models: run, evaluated and estimated, from a spec that fits on a screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import SpecError
from bench.estimate.estimator import estimate
from bench.models import hf
from bench.plugins.contracts import GenerateOptions, TaskFacts
from bench.records.record import Status
from bench.training.adapt import adapt
from bench.training.data import load_data
from bench.training.device import seed_everything
from bench.worker.run import run_cell
from tests.factories import load_cells
from tests.models.hf import vision_language_models
from tests.models.hf.models import ANSWERS, CONFIGS, QUESTIONS, WHOLE
from tests.training.runs import load_stored

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"type": "lora", "r": 2},
    "Library": {"peft_type": "LORA", "r": 2},
    "Prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3},
    "Prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3},
}
LABEL, WRITE = "text_classification", "text_generation"
WHOLE_MODEL = {"parts": WHOLE}
BLOCKS = {"embeddings": "F", "encoder": "LoRA", "head": "T"}
CELLS: list[tuple[str, str, dict[str, str], dict[str, Any], dict[str, Any]]] = [
    (LABEL, "bert", {"embeddings": "T", "encoder": "T", "head": "T"}, {}, {}),
    (LABEL, "bert", {"encoder": "LoRA", "head": "T"}, {}, {"gradient_checkpointing": True}),
    (LABEL, "bert", {"model": "Prefix"}, WHOLE_MODEL, {}),
    (LABEL, "bert", {"model": "Library"}, WHOLE_MODEL, {}),
    (LABEL, "gpt2", {"model": "Prompt"}, WHOLE_MODEL, {}),
    (WRITE, "llama", {"decoder": "LoRA", "head": "T"}, {"attention": "eager"}, {"precision": "bf16"}),
    (WRITE, "llama", {"model": "Prefix"}, WHOLE_MODEL, {}),
    (WRITE, "gpt2", {"model": "Prompt"}, WHOLE_MODEL, {}),
    (WRITE, "t5", {"encoder": "F", "decoder": "LoRA"}, {}, {}),
    (WRITE, "t5", {"model": "Prompt"}, WHOLE_MODEL, {}),
    (WRITE, "bart", {"model": "Prefix"}, WHOLE_MODEL, {}),
    ("image_classification", "vit", BLOCKS, {"image": {"size": 16}}, {"precision": "fp16_autocast"}),
    ("image_classification", "resnet", BLOCKS, {"image": {"size": 16}}, {}),
]


def cell_of(folder: Path, task: str, model: dict[str, Any], parts: dict[str, str], **train: Any) -> Any:
    rows = [{"text": text, "answer": answer} for text, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = "label" if task == LABEL else "answer"
    files = {"train": str(file), "test": str(file)}
    data: dict[str, Any] = {"name": "table", "files": files, "columns": {"text": "text", target: "answer"}}
    if task == "image_classification":
        data = {"name": "digits", "train_limit": 8, "test_limit": 4}
    if task == "generative_vqa":
        data = {"name": "easy_vqa", "train_limit": 8, "test_limit": 4}
    spec = {
        "name": "cells",
        "task": task,
        "model": {"family": "hf", **model},
        "data": data,
        "methods": {name: METHODS[name] for name in METHODS if name in parts.values()},
        "parts": parts,
        "train": {"steps": 3, "batch_size": 4, "optimizer": {"name": "adamw", "lr": 1e-3}, **train},
        "evaluate": {"batch_size": 4, "num_beams": 2, "max_new_tokens": 3},
        "run": {"device": "cpu"},
    }
    path = folder / "cells.yaml"
    path.write_text(json.dumps(spec))
    (cell,) = load_cells(path, "default")[1]
    return cell


@pytest.mark.parametrize(("task", "name", "parts", "model", "train"), CELLS)
def test_a_cell_is_run_and_its_estimate_refuses_nothing(
    tmp_path: Path, task: str, name: str, parts: dict[str, str], model: dict[str, Any], train: dict[str, Any]
) -> None:
    config = {"model_type": name, **CONFIGS[name]}
    cell = cell_of(tmp_path, task, {"config": config, **model}, parts, **train)
    record = run_cell(cell, tmp_path / "job")
    assert (record.status, record.error) == (Status.OK, None)
    assert record.scores
    found = estimate(cell)
    assert found.params == record.params
    assert found.refused == []
    assert found.memory is not None
    assert found.memory.train is not None
    assert found.assumed["lengths_from"] == "annotations"
    if "attention" in model:
        assert found.assumed["attention"] == "eager"


@pytest.mark.parametrize("name", ["llava", "blip"])
def test_a_cell_with_images_and_questions(tmp_path: Path, name: str) -> None:
    folder = vision_language_models.write(name, tmp_path / "weights")
    parts = {"embeddings": "F", "encoder": "F", "decoder": "LoRA"}
    cell = cell_of(tmp_path, "generative_vqa", {"path": str(folder)}, parts)
    record = run_cell(cell, tmp_path / "job")
    assert (record.status, record.error) == (Status.OK, None)
    found = estimate(cell)
    assert found.params == record.params
    if name == "llava":  # with several beams the library, if new, counts an image's tokens
        assert all("by the values of images and texts" in reason for reason in found.refused)
        found = estimate(cell.model_copy(update={"evaluate": cell.evaluate.model_copy(update={"num_beams": 1})}))
    assert found.refused == []


def test_what_cannot_be_modelled_is_refused_by_name(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, LABEL, {"config": {"model_type": "bart", **CONFIGS["bart"]}}, {"head": "T"})
    assert "unique_consecutive" in estimate(cell).refused[0]


def test_costs_of_a_published_model_from_its_configuration_alone(tmp_path: Path) -> None:
    config = {"model_type": "bert", "vocab_size": 30522}
    found = estimate(cell_of(tmp_path, LABEL, {"config": config}, {"encoder": "LoRA", "head": "T"}))
    assert found.params is not None
    assert found.params.total == 109_483_778 + found.params.trainable - 592_130
    assert found.refused == []


def test_virtual_tokens_on_a_part_are_refused_in_the_spec(tmp_path: Path) -> None:
    config = {"model_type": "bert", **CONFIGS["bert"]}
    with pytest.raises(SpecError, match=r"part 'encoder' takes no\s+virtual"):
        cell_of(tmp_path, LABEL, {"config": config}, {"encoder": "Prompt"})
    with pytest.raises(SpecError, match=r"no class of\s+'bert'\s+for\s+task\s+'image_classification'"):
        cell_of(tmp_path, "image_classification", {"config": config}, {"encoder": "T"})


def test_a_saved_adapter_and_a_saved_model_predict_the_same(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", **CONFIGS["gpt2"]}
    kept = {"save_adapter": True, "steps": 8}
    task = TaskFacts(name=WRITE, inputs=("text",), output="text")
    for action in ("Prefix", "Prompt", "Library", "T"):
        saved = tmp_path / action / "model"
        train = kept | ({"save_model": str(saved)} if action == "T" else {})
        (tmp_path / action).mkdir()
        cell = cell_of(tmp_path / action, WRITE, {"config": config, **WHOLE_MODEL}, {"model": action}, **train)
        assert run_cell(cell, tmp_path / action / "job").status is Status.OK
        lines = (tmp_path / action / "job" / "predictions.jsonl").read_text().splitlines()
        model: Any = None
        if action == "T":
            model = hf.build(hf.Settings(family="hf", path=saved), texts=[], device="cpu", task=task)
        else:
            seed_everything(cell.seed, torch.device("cpu"))
            texts = load_data(cell.data).source.texts()
            model = hf.build(cell.model, texts=texts, device="cpu", task=task)
            done = adapt(model, model.part_facts, cell.parts, cell.methods)
            load_stored(model, cell.parts, done, tmp_path / action / "job" / "adapter" / "adapter.safetensors")
        model.module.eval()
        options = GenerateOptions(num_beams=2, max_new_tokens=3)
        answers = model.generate(model.collate([], QUESTIONS, []), options)
        assert answers == [json.loads(line)["prediction"] for line in lines]


def test_a_cell_of_pairs_is_run_as_long_as_it_is_estimated(tmp_path: Path) -> None:
    config = {"model_type": "bert", **CONFIGS["bert"]}
    alone = cell_of(tmp_path, LABEL, {"config": config, "question_max_tokens": 7}, {"encoder": "LoRA", "head": "T"})
    columns = alone.data.columns.model_copy(update={"text_pair": "{answer}, {text}"})
    cell = alone.model_copy(update={"data": alone.data.model_copy(update={"columns": columns})})
    record = run_cell(cell, tmp_path / "job")
    assert (record.status, record.error) == (Status.OK, None)
    assert record.overlap is not None
    assert record.overlap.same == record.overlap.n == len(QUESTIONS)
    assert record.texts_cut is not None
    cut = record.texts_cut["test_questions"]
    assert 0 < cut.cut < cut.n == len(QUESTIONS)
    lines = (tmp_path / "job" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["text_pair"] == f"{ANSWERS[0]}, {QUESTIONS[0]}"
    found = estimate(cell)
    assert found.assumed["question_tokens"] == 7 + 3, "the longest pair, its begin, separator and end"
    assert estimate(alone).assumed["question_tokens"] < 10

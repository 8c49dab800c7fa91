"""A tiny random model of every family, and of every kind of task that a family can do."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import registry
from bench.models.hf.model import HfModel
from bench.plugins.contracts import TaskFacts
from bench.plugins.settings import ModelSettings
from tests.models.hf import models as hf_models
from tests.models.hf import vision_language_models

LABEL = TaskFacts(name="label", inputs=("text",), output="label", labels=("neg", "pos"))
WRITE = TaskFacts(name="write", inputs=("text",), output="text")
LOOK = TaskFacts(name="look", inputs=("image",), output="label", labels=("neg", "pos"))
ASK = TaskFacts(name="ask", inputs=("image", "text"), output="text")
QUESTIONS = ["what is it ?", "is there a red circle in the image ?", "color ?", "is it a lung or not ?"]
ANSWERS = {"text": ["red", "yes", "left lung", "a b c d"], "label": ["pos", "neg", "neg", "pos"]}


@dataclass(frozen=True, kw_only=True)
class ModelCase:
    """A model with random weights, and how its family reads what ``save`` wrote."""

    settings: Callable[[Path], Mapping[str, Any]]
    """Folder for files -> ``model`` of a spec."""
    saved: Callable[[Path], Mapping[str, Any]]
    """Folder that ``save`` wrote -> what differs in ``model`` to read it."""
    task: TaskFacts
    impossible: TaskFacts
    """A task that the family, or this architecture, cannot do."""
    lora_parts: tuple[str, ...]
    """Parts with layers for LoRA."""
    shared: tuple[str, ...] = ()
    """Names of tensors that several parts use, and that belong to none."""


def _hf(model_type: str, task: TaskFacts, impossible: TaskFacts, *lora_parts: str) -> ModelCase:
    config = {"model_type": model_type, **hf_models.CONFIGS[model_type]}
    return ModelCase(
        settings=lambda _: {"family": "hf", "config": config},
        saved=lambda folder: {"config": None, "path": folder},
        task=task,
        impossible=impossible,
        lora_parts=lora_parts,
    )


def _of_weights(family: Mapping[str, Any], task: TaskFacts, impossible: TaskFacts, *lora_parts: str) -> ModelCase:
    return ModelCase(
        settings=lambda _: family,
        saved=lambda folder: {"weights": {"kind": "folder", "path": folder}},
        task=task,
        impossible=impossible,
        lora_parts=lora_parts,
    )


MISS: dict[str, Any] = {
    "family": "miss",
    "preset": "tiny",
    "vision": {"hidden_size": 32, "num_hidden_layers": 2},
    "text": {"hidden_size": 32},
    "image": {"size": 32},
}
OFA: dict[str, Any] = {
    "family": "ofa",
    "preset": "micro",
    "network": {"hidden_size": 32, "resnet_channels": [8, 8, 8]},
    "image_size": 48,
    "constrain": "none",
}
TIMM = {
    "family": "timm",
    "architecture": "vit_tiny_patch16_224",
    "arguments": {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2},
    "image": {"size": 32},
}
CASES: dict[str, ModelCase] = {
    "hf label": _hf("bert", LABEL, LOOK, "encoder", "head"),
    "hf write": _hf("gpt2", WRITE, LOOK, "decoder"),
    "hf rewrite": _hf("t5", WRITE, LOOK, "encoder", "decoder"),
    "hf look": _hf("vit", LOOK, LABEL, "encoder", "head"),
    "hf ask": ModelCase(
        settings=lambda folder: {"family": "hf", "path": vision_language_models.write("llava", folder / "llava")},
        saved=lambda folder: {"path": folder},
        task=ASK,
        impossible=LABEL,
        lora_parts=("encoder", "connector", "decoder", "head"),
    ),
    "timm": _of_weights(TIMM, LOOK, ASK, "stem", "blocks", "head"),
    "miss": _of_weights(MISS, ASK, LOOK, "vit", "jtm", "dec"),
    "ofa": dataclasses.replace(_of_weights(OFA, ASK, LOOK, "encoder", "decoder"), shared=("embed_tokens.weight",)),
}


def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in QUESTIONS]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The plugin of a case, with settings: what a worker does with a model."""

    plugin: Any
    settings: ModelSettings
    case: ModelCase

    def build(self, device: str = "cpu", seed: int = 0) -> Any:
        torch.manual_seed(seed)
        texts = [*QUESTIONS, *ANSWERS[self.case.task.output]] if "text" in self.case.task.inputs else []
        model = self.plugin.build(self.settings, texts=texts, device=device, task=self.case.task)
        model.module.eval()
        return model

    def of(self, folder: Path) -> Family:
        """The family with the weights that ``save`` wrote into ``folder``."""
        changed = self.settings.model_dump() | dict(self.case.saved(folder))
        return dataclasses.replace(self, settings=self.plugin.Settings.model_validate(changed))

    def collate(self, model: Any, rows: slice = slice(None), *, with_answers: bool = False) -> dict[str, torch.Tensor]:
        inputs, output = self.case.task.inputs, self.case.task.output
        pictures = images()[rows] if "image" in inputs else []
        answers = ANSWERS[output][rows] if with_answers and output == "text" else []
        batch: dict[str, torch.Tensor] = model.collate(pictures, QUESTIONS[rows], answers)
        return batch


def family(name: str, folder: Path) -> Family:
    case = CASES[name]
    given = case.settings(folder)
    plugin = registry.load("models", given["family"])
    return Family(plugin=plugin, settings=plugin.Settings.model_validate(given), case=case)


@torch.no_grad()
def next_scores(model: Any, batch: dict[str, torch.Tensor], texts: torch.Tensor) -> torch.Tensor:
    """Scores (rows, vocabulary) behind the texts, by a whole forward pass without generation's cache."""
    scores: torch.Tensor = model.forward_scores(batch, torch.nn.functional.pad(texts, (0, 1)))
    return scores[:, -1]


def greedy(model: Any, batch: dict[str, torch.Tensor], steps: int) -> list[str]:
    """Answers of the likeliest tokens, each by a whole forward pass."""
    rows = len(batch["attention_mask"] if "attention_mask" in batch else batch["question_mask"])
    answers = torch.zeros(rows, 0, dtype=torch.long)
    for _ in range(steps):
        answers = torch.cat([answers, next_scores(model, batch, answers).argmax(-1)[:, None]], dim=1)
    ended = [list(itertools.takewhile(lambda token: token not in model.ends, row)) for row in answers.tolist()]
    if isinstance(model, HfModel):
        return [model.tokens.decode(torch.tensor([row]))[0] for row in ended]  # type: ignore[attr-defined]
    return [model.tokens.decode(row) for row in ended]

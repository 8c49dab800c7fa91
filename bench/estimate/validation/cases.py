"""Cells that are run on a real CPU and predicted; ``bench.estimate.validation.plain`` has further cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import registry
from bench.estimate.dataset_cache import Library, Shapes
from bench.plugins.contracts import BenchModel, InputLengths, TextModel
from bench.spec.cell import Cell, expand
from bench.spec.load import read_spec
from bench.spec.sections import TrainSettings
from bench.training.adapt import adapt
from bench.training.data import task_of
from bench.training.device import make_precision

LENGTHS = tuple(InputLengths(question_tokens=q, answer_tokens=a) for q, a in ((16, 8), (24, 35)))
"""Of the batches of every case, one a step."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training of ``len(LENGTHS)`` steps."""

    name: str
    model: str
    """In words, for the table."""
    settings: TrainSettings
    build: Callable[[str], TextModel]
    """The adapted model, its weights in the settings' precision, on ``cpu`` or ``meta``."""
    cell: Cell | None
    """Whose estimate is compared; null: steps of the run's trainer on meta are."""


class FixedLengths(Library):
    """Batches of given lengths, whatever the data."""

    def __init__(self, lengths: tuple[InputLengths, ...]) -> None:
        super().__init__()
        self._lengths = lengths

    def shapes(self, cell: Cell, model: BenchModel) -> Shapes:  # noqa: ARG002
        """The given ones."""
        return Shapes(train=self._lengths, test=self._lengths[-1:], source="given")


def cells() -> list[Case]:
    """Those of ``cells.yaml``."""
    return [case_of(cell) for cell in expand(read_spec(Path(__file__).with_name("cells.yaml")).resolve("default"))]


def case_of(cell: Cell) -> Case:
    """Builds what a run of the cell would train."""

    def build(device: str) -> TextModel:
        plugin = registry.load("models", cell.model.family)
        texts = FixedLengths(LENGTHS).annotations(cell).texts()
        model: TextModel = plugin.build(cell.model, texts=texts, device=device, task=task_of(cell).facts)
        adapt(model, model.part_facts, cell.parts, cell.methods)
        model.module.to(make_precision(cell.train.precision, torch.device(device)).weights)
        return model

    return Case(name=cell.label, model=cell.model.describe(), settings=cell.train, build=build, cell=cell)

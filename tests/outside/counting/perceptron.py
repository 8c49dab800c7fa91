"""A perceptron with one hidden layer, on grey pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.errors import SpecError
from bench.plugins import BenchModel, ModelSettings, PartFacts, TaskFacts

if TYPE_CHECKING:
    from ._network import Perceptron

PARTS = {
    "body": PartFacts(name="body", task_type=None, targets={"lora": ["hidden"]}),
    "head": PartFacts(name="head", task_type=None, targets={}),
}


class Settings(ModelSettings):
    """Its widths; the weights are random."""

    family: Literal["perceptron"]
    edge: int = 16
    """Pictures are scaled to this many pixels a side."""
    width: int = 64
    """Hidden units."""


def parts(settings: Settings, task: TaskFacts) -> dict[str, PartFacts]:
    """The two. Raises SpecError for a task that is not about the class of an image."""
    if task.output != "label" or task.inputs != ("image",):
        raise SpecError(f"family {settings.family!r} labels images; set a task that asks for that, not {task.name!r}")
    return PARTS


def weights_digest(settings: Settings) -> None:  # noqa: ARG001
    """There are no files."""
    return


def build(settings: Settings, *, texts: Sequence[str], device: str, task: TaskFacts) -> Perceptron:  # noqa: ARG001
    """With random weights; on meta without any."""
    from . import _network

    return _network.Perceptron(settings, len(task.labels), PARTS, device)


def save(model: BenchModel, folder: Path) -> None:
    """The weights as one file."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    save_model(model.module, str(folder / "model.safetensors"))

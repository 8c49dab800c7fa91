"""Base classes of the settings in a spec: frozen, without unknown fields, and with a mark for local paths.

Plugins declare their settings in their own modules, which stay light since a spec is validated against them: functions
import the heavy libraries (torch, transformers, peft, timm).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A mapping of a spec."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


class LocalPathMark:
    """Marks a field that says where something is, not what it is; such fields are left out of ``cell_id``."""


LocalPath = Annotated[Path, LocalPathMark(), Field(json_schema_extra={"format": "path"})]
"""A file or folder; a relative path starts at the working directory."""


class ModelSettings(Settings):
    """Settings of every model family; a family adds its own fields."""

    family: str
    """Name of the model family: a file in ``bench/models``."""

    def describe(self) -> str:
        """Model and weights in a few words, for captions."""
        return self.family


class TaskSettings(Settings):
    """Settings of every task; a task adds its own fields."""

    name: str
    """Name of the task: a file in ``bench/tasks``."""

    def describe_scoring(self) -> str:
        """How answers are scored, for readers of a table: a sentence without its full stop, or empty."""
        return ""


class TrackerSettings(Settings):
    """Settings of every tracker; a tracker adds its own fields."""

    name: str
    """Name of the tracker: a file in ``bench/trackers``."""


class MethodTraining(Settings):
    """Training settings of a method that differ from ``train``; null: the same."""

    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of this method's tensors, scaled by warm-up and schedule like ``train.optimizer.lr``."""
    weight_decay: float | None = Field(default=None, ge=0)


class MethodSettings(Settings):
    """Settings of every PEFT method; a method adds its own fields."""

    type: str
    """Name of the method: a file in ``bench/methods``."""
    targets: dict[str, list[str] | str] | None = None
    """Part -> names of the modules that get an adapter; null: the model family's default."""
    train: MethodTraining | None = None
    """Learning rate and weight decay of this method."""


class DataSettings(Settings):
    """Settings of every data set; a data set adds its own fields."""

    name: str
    """Name of the data set: a file in ``bench/datasets``."""
    train_split: str = "train"
    """Split for training, or several joined by ``+``, e.g. ``train+validate``."""
    test_split: str = "test"
    """Split for evaluation."""
    train_limit: int | None = Field(default=None, ge=1)
    """Size of a random subset for training (drawn with ``subset_seed``); null: all examples."""
    test_limit: int | None = Field(default=None, ge=1)
    """Size of a random subset for evaluation (drawn with ``subset_seed``); null: all examples."""
    subset_seed: int = 0
    """Seed of both subsets; the same for every cell, so that all cells share their questions."""

    def trained_and_scored(self) -> list[str]:
        """Splits used for both training and evaluation; scores on them are not held-out scores."""
        trained, tested = (
            [name.strip() for name in splits.split("+")] for splits in (self.train_split, self.test_split)
        )
        return [name for name in tested if name in trained]


def local_path_fields(settings: BaseModel) -> set[tuple[str, ...]]:
    """Paths (tuples of field names) of the ``LocalPath`` fields under ``settings``."""
    paths: set[tuple[str, ...]] = {(name,) for name in _local_paths(type(settings))}
    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        children = value.items() if isinstance(value, dict) else [((), value)]
        for key, child in children:
            if isinstance(child, BaseModel):
                prefix = (name,) if key == () else (name, str(key))
                paths |= {prefix + path for path in local_path_fields(child)}
    return paths


@cache
def _local_paths(settings: type[BaseModel]) -> frozenset[str]:
    """Names of the ``LocalPath`` fields."""
    fields = settings.model_fields.items()
    return frozenset(name for name, field in fields if _is_local_path(field.metadata, field.annotation))


def _is_local_path(metadata: list[Any], annotation: Any) -> bool:
    if any(isinstance(mark, LocalPathMark) for mark in metadata):
        return True
    return any(
        _is_local_path(list(getattr(option, "__metadata__", ())), option)
        for option in getattr(annotation, "__args__", ())
    )

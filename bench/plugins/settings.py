"""Base classes of everything a spec sets: frozen, no unknown fields, and a mark for local paths.

The settings classes of plugins live in the plugins' own files; the spec is validated against them,
so a plugin's module must stay light: heavy imports (torch, transformers, peft, timm) go into functions.
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
    """Marks a field that says *where* something lies, not *what* it is: left out of ``cell_id``."""


LocalPath = Annotated[Path, LocalPathMark(), Field(json_schema_extra={"format": "path"})]
"""A file or folder; a relative one is looked up from the working directory."""


class ModelSettings(Settings):
    """What every model family has; a family's file adds its own fields."""

    family: str
    """Name of the model family: a file in ``bench/models``."""

    def describe(self) -> str:
        """Model and weights in a few words, for captions."""
        return self.family


class TaskSettings(Settings):
    """What every task has; a task's file adds its own fields."""

    name: str
    """Name of the task: a file in ``bench/tasks``."""

    def describe_scoring(self) -> str:
        """What a reader of a table must know of how answers are scored, a sentence without its period; may be empty."""
        return ""


class TrackerSettings(Settings):
    """What every tracker has; a tracker's file adds its own fields."""

    name: str
    """Name of the tracker: a file in ``bench/trackers``."""


class MethodTraining(Settings):
    """What a method trains differently from ``train``; null: as there."""

    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of this method's tensors; warm-up and schedule scale it as they scale the other one."""
    weight_decay: float | None = Field(default=None, ge=0)


class MethodSettings(Settings):
    """What every PEFT method has; a method's file adds its own fields."""

    type: str
    """Name of the method: a file in ``bench/methods``."""
    targets: dict[str, list[str] | str] | None = None
    """Part -> module names the adapter is put on; without it, the model family's default."""
    train: MethodTraining | None = None
    """Learning rate and weight decay of this method's own."""


class DataSettings(Settings):
    """What every data set has; a data set's file adds its own fields."""

    name: str
    """Name of the data set: a file in ``bench/datasets``."""
    train_split: str = "train"
    """Split (or several joined by ``+``, e.g. ``train+validate``) that is trained on."""
    test_split: str = "test"
    """Split that is evaluated."""
    train_limit: int | None = Field(default=None, ge=1)
    """Train on a random subset of this many examples (drawn with ``subset_seed``); null for all."""
    test_limit: int | None = Field(default=None, ge=1)
    """Evaluate a random subset of this many examples (drawn with ``subset_seed``); null for all."""
    subset_seed: int = 0
    """Seed of the two subsets; the same for every cell, so that cells share their questions."""

    def trained_and_scored(self) -> list[str]:
        """Splits that are both trained on and evaluated: scores on them are no held-out ones."""
        trained, tested = ([name.strip() for name in own.split("+")] for own in (self.train_split, self.test_split))
        return [name for name in tested if name in trained]


def local_path_fields(settings: BaseModel) -> set[tuple[str, ...]]:
    """Paths (tuples of field names) under ``settings`` of the fields that hold a ``LocalPath``."""
    found: set[tuple[str, ...]] = {(name,) for name in _local_paths(type(settings))}
    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        children = value.items() if isinstance(value, dict) else [((), value)]
        for key, child in children:
            if isinstance(child, BaseModel):
                prefix = (name,) if key == () else (name, str(key))
                found |= {prefix + path for path in local_path_fields(child)}
    return found


@cache
def _local_paths(settings: type[BaseModel]) -> frozenset[str]:
    """Names of the fields that hold one."""
    fields = settings.model_fields.items()
    return frozenset(name for name, field in fields if _is_local_path(field.metadata, field.annotation))


def _is_local_path(metadata: list[Any], annotation: Any) -> bool:
    if any(isinstance(mark, LocalPathMark) for mark in metadata):
        return True
    return any(
        _is_local_path(list(getattr(option, "__metadata__", ())), option)
        for option in getattr(annotation, "__args__", ())
    )

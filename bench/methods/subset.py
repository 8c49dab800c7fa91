"""A part is trained but for what patterns leave out: ``T`` for some of its parameters."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import SpecError
from bench.methods.common.targets import refuse_unknown
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import MethodSettings

if TYPE_CHECKING:
    import torch


class Settings(MethodSettings):
    """Patterns of parameter names, e.g. ``encoder.layer.*.attention.*`` or ``*.bias``; ``*`` also spans dots."""

    type: Literal["subset"]
    include: list[str] = Field(default=["*"], min_length=1)
    """A parameter is trained if one of these means it ..."""
    exclude: list[str] = []
    """... and none of these."""


def check(settings: Settings, part: PartFacts) -> None:
    """Raise SpecError for ``targets``: patterns are what names parameters here."""
    if settings.targets:
        raise SpecError(f"method type {settings.type!r} has no targets on part {part.name!r}; use include and exclude")


def select(settings: Settings, part: PartFacts, module: torch.nn.Module) -> set[str]:
    """Names of the parameters. Raises SpecError for a pattern that means none, or if all are left out."""
    names = [name for name, _ in module.named_parameters()]
    for pattern in (*settings.include, *settings.exclude):
        if not any(fnmatchcase(name, pattern) for name in names):
            refuse_unknown(pattern, names, f"parameter of part {part.name!r}")
    kept = {name for name in names if any(fnmatchcase(name, pattern) for pattern in settings.include)}
    kept -= {name for name in kept if any(fnmatchcase(name, pattern) for pattern in settings.exclude)}
    if not kept:
        raise SpecError("exclude leaves nothing of include: nothing would be trained")
    return kept

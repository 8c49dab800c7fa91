"""What several methods need: target modules of a part, and the task type of the library's wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import SpecError
from bench.protocols import PartFacts
from bench.settings import MethodSettings

if TYPE_CHECKING:
    from peft import TaskType


def targets(settings: MethodSettings, part: PartFacts) -> list[str] | str:
    """The module names the adapter is put on. Raises SpecError if neither spec nor model family has any."""
    given = (settings.targets or {}).get(part.name, part.targets.get(settings.type))
    if not given:
        raise SpecError(
            f"method type {settings.type!r} has no target modules on part {part.name!r}; "
            f"name them: targets: {{{part.name}: [...]}}"
        )
    return given


def known_targets(settings: MethodSettings, part: PartFacts) -> list[str] | str | None:
    """The same when a spec is validated: null for a part whose layers only the built model knows (no facts of it)."""
    if not part.targets and part.name not in (settings.targets or {}):
        return None
    return targets(settings, part)


def task_type(part: PartFacts) -> TaskType | None:
    """The library's task type of a part: it chooses the wrapper, and so how prompts reach ``generate``."""
    from peft import TaskType

    return TaskType(part.task_type) if part.task_type else None


def check_prompts(settings: MethodSettings, part: PartFacts) -> None:
    """Raise SpecError if virtual tokens cannot be put on this part."""
    if part.task_type is None:
        raise SpecError(f"method type {settings.type!r} needs a text model; part {part.name!r} takes no virtual tokens")
    if settings.targets:
        raise SpecError(f"method type {settings.type!r} has no target modules; remove `targets`")


def as_library_class(config_class: type, field: str, value: Any) -> Any:
    """A mapping as the dataclass that the library wants for this field, e.g. ``EvaConfig``; other values unchanged."""
    import dataclasses
    import typing

    if not isinstance(value, dict):
        return value
    annotation = typing.get_type_hints(config_class)[field]
    options = typing.get_args(annotation) or (annotation,)
    wanted = next((option for option in options if dataclasses.is_dataclass(option)), None)
    return wanted(**value) if isinstance(wanted, type) else value

"""What model families share."""

from __future__ import annotations

from bench.errors import SpecError
from bench.plugins.contracts import TaskFacts


def require_vqa(family: str, task: TaskFacts) -> None:
    """Raise SpecError unless the task is to answer questions about images in words."""
    if set(task.inputs) != {"image", "text"} or task.output != "text":
        raise SpecError(
            f"model family {family} answers questions about images, so it cannot do {task.name}; "
            "choose another family, or remove `task`"
        )

"""What the values of a record can be at all, whoever wrote it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Parameters, bytes, examples, steps: never negative, and within what other programs hold."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
"""Seconds and joules."""
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]
"""Sums and squares of a few stay finite, or are refused by name."""
_KINDS = {"device": str, "cpu": str, "versions": dict, "git": dict}


def _readable(environment: dict[str, Any]) -> dict[str, Any]:
    """What readers ask for has its type."""
    for name, kind in _KINDS.items():
        if not isinstance(environment.get(name), kind | None):
            found = type(environment[name]).__name__
            raise ValueError(f"environment.{name} is {found}, not {kind.__name__}")  # noqa: TRY004 - pydantic's
    return environment


Environment = Annotated[dict[str, Any], AfterValidator(_readable)]


def device_bytes(environment: dict[str, Any]) -> int:
    """Memory of the GPU that a record is of; 0 where it was not recorded."""
    gpus = environment.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict) and gpu.get("name") == environment.get("device"):
            found = gpu.get("memory_bytes")
            return found if isinstance(found, int) else 0
    return 0


def check_correct(correct: int | None, n: int) -> None:
    """Raises ValueError if more are correct than there are."""
    if correct is not None and correct > n:
        raise ValueError("more are correct than there are")

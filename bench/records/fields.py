"""The base of everything in a record, and what its values can be, whoever wrote it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Parameters, bytes, examples, steps: never negative, and within what other programs hold."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
"""Seconds and joules."""
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]
"""Sums and squares of a few stay finite, or are refused by name."""
_KINDS = {"device": str, "cpu": str, "versions": dict, "git": dict}


def _readable(environment: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError where a key that readers use has another type."""
    for name, kind in _KINDS.items():
        if not isinstance(environment.get(name), kind | None):
            found = type(environment[name]).__name__
            raise ValueError(f"environment.{name} is {found}, not {kind.__name__}")  # noqa: TRY004 - pydantic collects ValueError
    return environment


Environment = Annotated[dict[str, Any], AfterValidator(_readable)]


def device_bytes(environment: dict[str, Any]) -> int:
    """Total memory of the GPU that the cell ran on, bytes; 0 if it was not recorded."""
    gpus = environment.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict) and gpu.get("name") == environment.get("device"):
            found = gpu.get("memory_bytes")
            return found if isinstance(found, int) else 0
    return 0


class RecordModel(BaseModel):
    """Base of a record and all it holds: unknown fields are an error, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )

"""Base class of record models, and types and limits of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Parameters, bytes, examples or steps: not negative, and within a signed 64-bit integer, which other programs read."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
"""Seconds and joules."""
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]
"""A finite number; sums of a few stay finite, and squares that overflow are refused by name."""
_KINDS = {"device": str, "cpu": str, "versions": dict, "git": dict}


def _readable(environment: dict[str, Any]) -> dict[str, Any]:
    """The environment. Raises ValueError if a key that readers use has another type."""
    for name, kind in _KINDS.items():
        if not isinstance(environment.get(name), kind | None):
            actual = type(environment[name]).__name__
            raise ValueError(f"environment.{name} is {actual}, not {kind.__name__}")  # noqa: TRY004 - pydantic collects ValueError
    return environment


Environment = Annotated[dict[str, Any], AfterValidator(_readable)]


def device_bytes(environment: dict[str, Any]) -> int:
    """Total memory of the GPU that the cell ran on, bytes; 0 if it was not recorded."""
    gpus = environment.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        if isinstance(gpu, dict) and gpu.get("name") == environment.get("device"):
            total = gpu.get("memory_bytes")
            return total if isinstance(total, int) else 0
    return 0


class RecordModel(BaseModel):
    """Base of all record models; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )

"""Weights in fewer bits than the harness computes with: refused by name, as they would be read as if they were whole.
No torch in here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import WeightsError

_FIELDS = ("quantization_config", "compression_config")
_TYPES = ("I8", "U8", "F8", "F4", "F6", "I4", "U4")
"""How the names of small types begin in a safetensors file."""
_LONGEST_HEADER = 100 << 20
_REMEDY = "quantised weights are not supported; give the unquantised model"


def quantised(config: Mapping[str, Any]) -> str | None:
    """The field of a configuration, or of one inside it, that says its weights are quantised, and how; null if none."""
    for name, value in config.items():
        if name in _FIELDS and value:
            kind = value.get("quant_method") or value.get("quant_type") if isinstance(value, Mapping) else None
            return f"{name} ({kind})" if kind else name
        if isinstance(value, Mapping) and (found := quantised(value)) is not None:
            return f"{name}.{found}"
    return None


def told(config: Mapping[str, Any]) -> str | None:
    """What to say of a configuration of quantised weights; null for others."""
    found = quantised(config)
    return None if found is None else f"{found} says that the weights are quantised: {_REMEDY}, or remove the field"


def check_config(path: Path) -> None:
    """Raise WeightsError that names the file and the field if a ``config.json`` is of quantised weights."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads it says so
        return
    if isinstance(content, dict) and (problem := told(content)) is not None:
        raise WeightsError(f"{path}: {problem}")


def check_tensors(files: Iterable[Path]) -> None:
    """Raise WeightsError that names file and tensor if a weight is stored in eight bits or fewer (safetensors only)."""
    for path in files:
        for name, entry in _header(path).items():
            kind = str(entry.get("dtype")) if isinstance(entry, dict) else ""
            if name.endswith("weight") and kind.startswith(_TYPES):
                raise WeightsError(f"{path}: {name} is stored as {kind}: {_REMEDY}")


def _header(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < _LONGEST_HEADER:
            return {}
        try:
            found = json.loads(file.read(length))
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}

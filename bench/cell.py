"""Cell: one point of the matrix with one seed, and everything a worker needs to run it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bench.settings import DataSettings, MethodSettings, ModelSettings
from bench.spec.models import AnyData, AnyMethod, AnyModel, EvaluateSettings, RunSettings, TrainSettings


class Cell(BaseModel):
    """Written as ``cell.json`` into the job folder and read by ``python -m bench.worker``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cell_id: str
    spec: str
    scale: str
    label: str
    """``F-LoRA-LoRA rank=4``; unique within a spec and scale."""
    labels: dict[str, Any]
    parts: dict[str, str]
    seed: int
    model: AnyModel
    data: AnyData
    train: TrainSettings
    evaluate: EvaluateSettings
    methods: dict[str, AnyMethod]
    """Only the methods that ``parts`` names."""
    run: RunSettings

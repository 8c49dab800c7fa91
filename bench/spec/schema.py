"""JSON schemas of a spec, for editors, and of a record, for programs that read results."""

from __future__ import annotations

import json
from typing import Any

from bench.records.record import SCHEMA_VERSION, CellRecord
from bench.spec.sections import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def spec_schema() -> dict[str, Any]:
    """Schema of a spec file (of its YAML as JSON)."""
    return {"$schema": DIALECT, **Spec.model_json_schema()}


def record_schema() -> dict[str, Any]:
    """Schema of one line of a results file and of a record in ``--json``."""
    return {"$schema": DIALECT, "version": SCHEMA_VERSION, **CellRecord.model_json_schema(mode="serialization")}


def schema_text(which: str | None = None) -> str:
    """What ``--print-schema [spec|record]`` prints: one schema, or both under their names."""
    schemas = {"spec": spec_schema, "record": record_schema}
    chosen = schemas[which]() if which else {name: make() for name, make in schemas.items()}
    return json.dumps(chosen, indent=2, ensure_ascii=False) + "\n"

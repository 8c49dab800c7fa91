"""The committed JSON schemas are current, and the committed specs and real records are valid against them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from bench.records.record import CellRecord, Status
from bench.records.scores import Accuracy, Share
from bench.spec.diagnostics import Diagnostics
from bench.spec.schema import record_schema, schema_text, spec_schema
from bench.spec.yaml_tree import parse

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))


@pytest.mark.parametrize("which", ["spec", "record"])
def test_current(root: Path, which: str) -> None:
    committed = (root / f"specs/{which}.schema.json").read_text(encoding="utf-8")
    remedy = f"run: python run_bench.py --print-schema {which} > specs/{which}.schema.json"
    assert committed == schema_text(which), remedy


def test_schemas_are_valid() -> None:
    for schema in (spec_schema(), record_schema()):
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_committed_specs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n")
    tree = parse(text, path.name, Diagnostics())
    assert tree is not None
    jsonschema.Draft202012Validator(spec_schema()).validate(tree.plain())


def test_a_wrong_spec_is_not_valid() -> None:
    with pytest.raises(jsonschema.ValidationError, match="batch_size"):
        jsonschema.validate({"train": {"batch_size": "8", "optimizer": {"lr": 1}}}, spec_schema())


def test_a_record() -> None:
    score = Share(correct=1, n=2)
    record = CellRecord(
        cell_id="0" * 16,
        spec="s",
        scale="demo",
        label="F-T",
        labels={"rank": 4},
        parts={"a": "F", "b": "T"},
        seed=1,
        status=Status.OK,
        accuracy=Accuracy(open=score, closed=score, overall=score),
    )
    content = json.loads(record.model_dump_json(by_alias=True))
    jsonschema.Draft202012Validator(record_schema()).validate(content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(record_schema()).validate(content | {"status": "fine"})

"""The committed JSON schemas are current, and the committed specs and a record are valid against them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from bench.spec.cell import expand
from bench.spec.diagnostics import Diagnostics
from bench.spec.load import read_spec
from bench.spec.schema import record_schema, schema_text, spec_schema
from bench.spec.yaml_tree import parse
from tests.conftest import ROOT
from tests.factories import make_record

SPECS = jsonschema.Draft202012Validator(spec_schema())
RECORDS = jsonschema.Draft202012Validator(record_schema())


@pytest.mark.parametrize("which", ["spec", "record"])
def test_a_committed_schema_is_current(which: str) -> None:
    committed = (ROOT / f"specs/{which}.schema.json").read_text(encoding="utf-8")
    remedy = f"run: python run_bench.py --print-schema {which} > specs/{which}.schema.json"
    assert committed == schema_text(which), remedy
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def test_specs_are_valid() -> None:
    for path in (ROOT / "specs").glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n"), path
        tree = parse(text, path.name, Diagnostics())
        assert tree is not None
        SPECS.validate(tree.plain())
    with pytest.raises(jsonschema.ValidationError, match="batch_size"):
        SPECS.validate({"train": {"batch_size": "8", "optimizer": {"lr": 1}}})


def test_a_record_is_valid() -> None:
    cell = expand(read_spec(ROOT / "specs/table1.yaml").resolve("demo"))[0]
    content = json.loads(make_record(cell).model_dump_json(by_alias=True))
    RECORDS.validate(content)
    with pytest.raises(jsonschema.ValidationError):
        RECORDS.validate(content | {"status": "fine"})

"""YAML as a spec reads it: 1.2 values, locations."""

from __future__ import annotations

from typing import Any

import pytest

from bench.spec.diagnostics import Diagnostics
from bench.spec.yaml_tree import Node, parse


def read(text: str) -> Node:
    diagnostics = Diagnostics()
    tree = parse(text, "s.yaml", diagnostics)
    diagnostics.raise_if_any()
    assert tree is not None
    return tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5E+3", 1500.0),
        ("no", "no"),
        ("on", "on"),
        ("F", "F"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0x1F", 31),
        ("1_000", 1000),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("[1, [2]]", [1, [2]]),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = read(f"a: {text}\n").plain()
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_marks() -> None:
    tree = read("a: 1\nb:\n  - c: x\n")
    leaf = tree.get("b", 0, "c")
    assert leaf == Node("x", "s.yaml:3:8", "s.yaml:3:5")
    assert tree.get("b", 1) is None
    assert tree.get("a", "c") is None

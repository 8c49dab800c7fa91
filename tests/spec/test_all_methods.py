"""specs/examples/all_methods.yaml names every method of the peft that it was written for, and of our own."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from bench import registry
from bench.methods.common import library
from bench.spec.cell import Cell
from tests.factories import load_cells

WRITTEN_FOR = "0.21.2"
LEFT_OUT = {"XLORA": "mixes adapters that were trained before"}
SAME_AS = {
    "lora": "LORA",
    "ia3": "IA3",
    "prefix": "PREFIX_TUNING",
    "ptuning_v2": "PREFIX_TUNING",
    "peft_config": "LORA",
}
"""Our own names of methods of the library."""


@pytest.fixture(scope="module")
def cells(root: Path) -> list[Cell]:
    return load_cells(root / "specs/examples/all_methods.yaml", "default")[1]


def named(cells: list[Cell], field: str) -> set[str]:
    methods = [method for cell in cells for method in cell.methods.values()]
    return {str(getattr(method, field)) for method in methods if getattr(method, field, "")}


def test_every_type_of_the_installed_library_is_there_or_named_as_left_out(cells: list[Cell], root: Path) -> None:
    """A type that a new release brings belongs into the file, or with a reason into its head and ``LEFT_OUT``."""
    there, known = named(cells, "peft_type"), set(library.types())
    assert sorted(known - there - LEFT_OUT.keys()) == []
    assert not there & LEFT_OUT.keys()
    head = (root / "specs/examples/all_methods.yaml").read_text().partition("name: ")[0]
    assert [name for name in LEFT_OUT if name not in head] == []
    if version("peft") == WRITTEN_FOR:
        assert there <= known


def test_every_method_of_our_own_is_there(cells: list[Cell]) -> None:
    assert set(registry.names("methods")) - named(cells, "type") <= SAME_AS.keys()
    assert set(SAME_AS.values()) <= named(cells, "peft_type")


def test_both_models_have_all_that_fits_them(cells: list[Cell]) -> None:
    of = {name: {cell.parts["model"] for cell in cells if cell.labels["variant"] == name} for name in ("llama", "vit")}
    texts_alone = {"head", "SHADOW", "ADAPTION_PROMPT", "TRAINABLE_TOKENS"}
    texts_alone |= {name for name in library.types() if library.method(name).takes_prompts}
    assert of["llama"] - of["vit"] == texts_alone & of["llama"]
    assert of["vit"] - of["llama"] == {"F"}


def test_a_cell_takes_seconds(cells: list[Cell]) -> None:
    assert len(cells) <= 100
    assert all(cell.train.steps is not None and cell.train.steps <= 100 for cell in cells)

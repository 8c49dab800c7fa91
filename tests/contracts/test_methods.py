"""What every method keeps: a plugin of ours, or a type of peft by its own fields.

specs/examples/all_methods.yaml names them all with fields that fit a small language model and a vision transformer;
tests/spec/test_examples.py compares it with what is installed. published_counts.yaml has counts that others printed.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from bench import registry
from bench.errors import BenchError
from bench.methods.common import library
from bench.methods.common.catalogue import catalogue
from bench.plugins.contracts import PartFacts
from bench.records.costs import Params
from bench.spec.cell import Cell
from bench.spec.sections import AnyMethod
from bench.training.adapt import adapt, needs_values
from bench.training.audit import check_frozen
from bench.training.data import task_of
from bench.training.params import count_params
from tests.conftest import ROOT
from tests.factories import load_cells

CELLS = {cell.label: cell for cell in load_cells(ROOT / "specs/examples/all_methods.yaml", "default")[1]}
METHODS = {action: method for cell in CELLS.values() for action, method in cell.methods.items()}
PUBLISHED = YAML(typ="safe").load(ROOT / "tests/contracts/published_counts.yaml")
ENTRIES = {entry.name: entry for entry in catalogue()}


class Whole:
    """A model of one part, ``net``."""

    def __init__(self, net: torch.nn.Module) -> None:
        self.module = torch.nn.ModuleDict({"net": net})

    def part(self, name: str) -> torch.nn.Module:
        return self.module.get_submodule(name)

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        self.module[name] = adapted

    def put_on(self, method: Any, task_type: str | None) -> Params:
        facts = PartFacts(name="net", task_type=task_type, targets={})
        adapters = adapt(self, {"net": facts}, {"net": "M"}, {"M": method})  # type: ignore[arg-type]
        return count_params(self, {"net": "M"}, adapters)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS)
def test_a_part_that_has_nothing_for_it_is_refused_by_name(name: str) -> None:
    with pytest.raises(BenchError, match="method M cannot be put on part net: "):
        Whole(torch.nn.Bilinear(2, 2, 2, bias=False)).put_on(METHODS[name], None)


def counts(cell: Cell, device: str) -> Params:
    torch.manual_seed(0)
    plugin = registry.load("models", cell.model.family)
    texts = ["a b c d e f g h i j k l m n"]  # a vocabulary that has the tokens that methods name
    model = plugin.build(cell.model, texts=texts, device=device, task=task_of(cell).facts)
    adapters = adapt(model, model.part_facts, cell.parts, cell.methods)
    check_frozen(model, cell.parts, adapters)
    return count_params(model, cell.parts, adapters)


@pytest.mark.parametrize("label", CELLS)
def test_it_trains_what_it_says_and_counts_alike_on_meta(label: str) -> None:
    cell = CELLS[label]
    params = counts(cell, "cpu")
    assert 0 < params.trainable <= params.total
    assert sum(part.trainable for part in params.by_part.values()) == params.trainable
    try:
        assert counts(cell, "meta") == params
    except RuntimeError as error:
        if not needs_values(error):  # as a method does that computes from the weights
            raise


@pytest.mark.parametrize("row", PUBLISHED["counts"], ids=lambda r: f"{r['model']}-{r['method']['peft_type']}")
def test_counts_are_those_that_others_printed(row: dict[str, Any]) -> None:
    model = PUBLISHED["models"][row["model"]]
    with torch.device("meta"):
        config = getattr(transformers, model["config"])(**model["sizes"])
        net = getattr(transformers, model["model"])(config)
    if model.get("untied"):
        net.lm_head.weight = torch.nn.Parameter(torch.empty_like(net.lm_head.weight))
    params = Whole(net).put_on(TypeAdapter(AnyMethod).validate_python(row["method"]), row.get("task_type"))
    assert params.trainable == row["trainable"]
    assert row["total"] in (params.total, None)


def test_enough_is_published() -> None:
    rows = PUBLISHED["counts"]
    assert len(rows) >= 25
    assert len({row["method"]["peft_type"] for row in rows}) >= 15
    assert len({row["model"].split("-")[0] for row in rows}) >= 6
    assert all(row["source"].startswith("https://") for row in rows)


def test_the_catalogue_has_every_method_once_with_what_it_needs_and_where_it_applies() -> None:
    assert list(ENTRIES) == [*registry.names("methods"), *library.types()]
    assert all(entry.summary for entry in ENTRIES.values() if entry.key == "type")
    vera, blocks = ENTRIES["VERA"], ENTRIES["last_blocks"]
    assert (vera.key, vera.kind, vera.applies_to, vera.fields["r"]) == ("peft_type", "adapter", "Linear layers", 256)
    assert "Vector-based Random Matrix Adaptation" in vera.summary
    assert (blocks.key, blocks.kind, blocks.needs, blocks.applies_to) == ("type", "selective", ("k",), "any part")
    assert ENTRIES["PROMPT_TUNING"].applies_to == "text models (parts with a task type)"
    assert "Conv2d" in ENTRIES["LORA"].applies_to
    kinds = {"prefix": "prompt", "ptuning_v2": "prompt", "lora": "adapter", "ia3": "adapter"}
    assert {name: ENTRIES[name].kind for name in kinds} == kinds

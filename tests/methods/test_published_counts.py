"""Trainable and total parameters come out as the library's documentation and its method comparison printed them."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter

from bench.plugins.contracts import PartFacts
from bench.spec.sections import AnyMethod
from bench.training.adapt import adapt
from bench.training.params import count_params
from tests.methods.published_counts import MODELS, PRINTED, Printed


class Whole:
    """A model of one part, ``net``, on the meta device."""

    def __init__(self, name: str) -> None:
        with torch.device("meta"):
            self.module: torch.nn.Module = torch.nn.ModuleDict({"net": MODELS[name]()})

    def part(self, name: str) -> torch.nn.Module:
        return self.module.get_submodule(name)

    def replace_part(self, name: str, adapted: torch.nn.Module) -> None:
        assert isinstance(self.module, torch.nn.ModuleDict)
        self.module[name] = adapted


@pytest.mark.parametrize("printed", PRINTED, ids=lambda p: f"{p.model}-{p.method['peft_type']}-{p.trainable}")
def test_counts(printed: Printed) -> None:
    model = Whole(printed.model)
    facts = PartFacts(name="net", task_type=printed.task_type, targets={})
    method = TypeAdapter(AnyMethod).validate_python(printed.method)
    adapters = adapt(model, {"net": facts}, {"net": "M"}, {"M": method})  # type: ignore[arg-type]
    params = count_params(model, {"net": "M"}, adapters)  # type: ignore[arg-type]
    assert params.trainable == printed.trainable
    assert printed.total in (params.total, None)


def test_the_table_is_wide_enough() -> None:
    assert len(PRINTED) >= 25
    assert len({printed.method["peft_type"] for printed in PRINTED}) >= 15
    assert len({type(MODELS[printed.model]).__name__ + printed.model.split("-")[0] for printed in PRINTED}) >= 6
    assert all(printed.source.startswith("https://") for printed in PRINTED)

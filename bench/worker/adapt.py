"""Freeze, train or adapt each part of a model as the cell says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench import registry
from bench.protocols import BenchModel, PartFacts
from bench.settings import MethodSettings

if TYPE_CHECKING:
    from peft import PeftModel

FROZEN, TRAINED = "F", "T"
"""The two actions that are not the name of a method."""


def adapt(
    model: BenchModel,
    facts: Mapping[str, PartFacts],
    parts: Mapping[str, str],
    methods: Mapping[str, MethodSettings],
) -> dict[str, PeftModel]:
    """Apply ``parts`` (part -> action) to ``model`` in place; works on the meta device, too.

    Returns the adapted module of every part that got a method. Parameters outside all parts stay frozen.
    """
    model.module.requires_grad_(False)
    adapters: dict[str, PeftModel] = {}
    for part, action in parts.items():
        if action == TRAINED:
            model.part(part).requires_grad_(True)
        elif action != FROZEN:
            adapters[part] = _put_on(model, facts[part], methods[action])
    return adapters


def _put_on(model: BenchModel, part: PartFacts, method: MethodSettings) -> PeftModel:
    from peft import get_peft_model  # takes seconds to import, and full training needs none of it

    plain = model.part(part.name)
    config = registry.load("methods", method.type).config(method, part, plain)
    adapted: PeftModel = get_peft_model(plain, config)
    model.replace_part(part.name, adapted)
    return adapted

"""Whose default target modules the methods of some cells take, said before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import registry
from bench.plugins.contracts import PartFacts
from bench.spec.cell import Cell
from bench.spec.variants import COLUMN


def target_lines(cells: Sequence[Cell]) -> list[str]:
    """A line per variant, part and source of default target modules, with the methods that take them; none where the
    spec names all of them. Imports no torch."""
    known: dict[str, Mapping[str, PartFacts]] = {}
    found: dict[tuple[str, str], dict[str, None]] = {}  # where, source -> methods in their order
    for cell in cells:
        for part, action in cell.parts.items():
            method = cell.methods.get(action)
            if method is None or not hasattr(plugin := registry.load("methods", method.type), "source"):
                continue
            model = cell.model.model_dump_json() + cell.task.name
            if model not in known:
                task = registry.load("tasks", cell.task.name).FACTS
                known[model] = registry.load("models", cell.model.family).parts(cell.model, task)
            if whose := plugin.source(method, known[model][part]):
                variant = cell.labels.get(COLUMN)
                where = part if variant is None else f"{part} (variant {variant})"
                found.setdefault((where, whose), {})[action] = None
    return [f"target modules of {', '.join(methods)} on {where}: {whose}" for (where, whose), methods in found.items()]

"""Cell: one point of the matrix with one seed, and everything a worker needs to run it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from bench import registry
from bench.errors import SpecError
from bench.plugins.contracts import PartFacts
from bench.plugins.settings import local_path_fields
from bench.spec.diagnostics import Diagnostics
from bench.spec.matrix import VARIANT_AXIS
from bench.spec.sections import (
    DEFAULT_TASK,
    AnyData,
    AnyMethod,
    AnyModel,
    AnyTask,
    EvaluateSettings,
    RunSettings,
    TrainSettings,
)
from bench.spec.yaml_tree import PLUGIN_KEYS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.spec.check import Checked
    from bench.spec.load import ResolvedSpec

FROZEN = "F"
DETERMINING = ("model", "task", "data", "train", "evaluate", "methods", "parts", "seed")
"""Fields of a cell that determine its result."""


class Cell(BaseModel):
    """Written as ``cell.json`` into the job folder and read by ``python -m bench.worker``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cell_id: str
    """First 16 hex digits of the SHA-256 of what determines the result."""
    spec: str
    scale: str
    label: str
    """``F-LoRA-LoRA rank=4``; unique within a spec and scale."""
    labels: dict[str, Any]
    """Axis name -> value; the parts are in ``parts``."""
    parts: dict[str, str]
    seed: int
    model: AnyModel
    task: AnyTask = DEFAULT_TASK
    data: AnyData
    train: TrainSettings
    evaluate: EvaluateSettings
    methods: dict[str, AnyMethod]
    """Only the methods that ``parts`` names."""
    run: RunSettings

    def identity(self) -> dict[str, Any]:
        """Fields of a record that identify its cell."""
        shared = ("cell_id", "spec", "scale", "label", "labels", "parts", "seed")
        return {name: getattr(self, name) for name in shared} | {"settings": self.model_dump(mode="json")}

    def matches(self, glob: str) -> bool:
        """Whether ``--only GLOB`` selects this cell, by its label or by its pattern of parts."""
        return fnmatchcase(self.label, glob) or fnmatchcase(pattern(self.parts), glob)


def expand(resolved: ResolvedSpec) -> list[Cell]:
    """The cells of a spec, in the order of its matrix (first axis slowest, seeds fastest).

    Raises SpecError if two cells would be the same run."""
    spec, diagnostics = resolved.spec, Diagnostics()
    labels = _labels(resolved.points)
    cells = [
        _cell(resolved, checked, label if len(spec.seeds) == 1 else f"{label} seed={seed}", seed)
        for checked, label in zip(resolved.points, labels, strict=True)
        for seed in spec.seeds
    ]
    cells = _distinguished(cells)
    locations = [checked.point.location for checked in resolved.points for _ in spec.seeds]
    first: dict[str, Cell] = {}
    for cell, location in zip(cells, locations, strict=True):
        twin = first.setdefault(cell.cell_id, cell)
        if twin is not cell:
            message = f"cell {cell.label!r} is the same run as {twin.label!r}; remove a repeated value or `exclude` one"
            diagnostics.add(location, "matrix", f"{message} of them")
    diagnostics.raise_if_any()
    return cells


def _distinguished(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with distinct ids: those that differ only in the location of their data or model get ids that include
    the labels that differ. All other ids depend on nothing local.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(cell.cell_id, []).append(cell)
    return [cell if len(alike[cell.cell_id]) == 1 else _by_labels(cell, alike[cell.cell_id]) for cell in cells]


def _by_labels(cell: Cell, alike: Sequence[Cell]) -> Cell:
    if len({_where(other) for other in alike}) == 1:
        return cell
    labels = next(other.labels for other in alike if _where(other) == _where(cell))  # the first of the same run
    differing = {name: value for name, value in labels.items() if any(o.labels.get(name) != value for o in alike)}
    return cell.model_copy(update={"cell_id": cell_id({"cell": cell.cell_id, "labels": differing})})


def _where(cell: Cell) -> str:
    """Locations of data and model as a comparable text."""
    return f"{cell.data.model_dump_json()} {cell.model.model_dump_json()}"


def select(cells: Sequence[Cell], globs: Sequence[str]) -> list[Cell]:
    """Cells that any of the globs selects, or all without globs. Raises SpecError for a glob that selects none."""
    for glob in globs:
        if not any(cell.matches(glob) for cell in cells):
            known = ", ".join(repr(cell.label) for cell in cells[:12]) + (", ..." if len(cells) > 12 else "")
            raise SpecError(f"--only {glob!r}: no cell has such a label (labels: {known}); see them all with --list")
    return [cell for cell in cells if not globs or any(cell.matches(glob) for glob in globs)]


def pattern(parts: dict[str, str]) -> str:
    """``F-LoRA-LoRA``: the actions in the order of the parts."""
    return "-".join(parts.values())


def cell_id(content: dict[str, Any]) -> str:
    """The id of a cell from what determines its result, as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cell(resolved: ResolvedSpec, checked: Checked, label: str, seed: int) -> Cell:
    settings = checked.settings
    parts = {part: settings.parts[part] for part in checked.parts if part in settings.parts}
    cell = Cell.model_construct(
        cell_id="",
        spec=resolved.spec.name,
        scale=resolved.scale,
        label=label,
        labels=checked.point.labels,
        parts=parts,
        seed=seed,
        model=settings.model,
        task=settings.task,
        data=settings.data,
        train=settings.train,
        evaluate=settings.evaluate,
        methods={name: method for name, method in settings.methods.items() if name in parts.values()},
        run=settings.run,
    )
    return cell.model_copy(update={"cell_id": cell_id(_content(cell))})


def _content(cell: Cell) -> dict[str, Any]:
    """Fields that determine the result, without the locations of files, whose digests are in the record."""
    # Without defaults, so that a field added later, whose default keeps the old behaviour, changes no id.
    content = cell.model_dump(mode="json", include=set(DETERMINING), exclude_defaults=True)
    for root, *path, last in local_path_fields(cell):
        below = content.get(root)
        for step in path:
            below = below.get(step) if below is not None else None
        if below is not None:
            below.pop(last, None)
    return content


def _labels(points: Sequence[Checked]) -> list[str]:
    """Unique readable labels: pattern of parts and axis values. All patterns of a model have the same parts: F for a
    part that only other cells name."""
    named: dict[tuple[Any, ...], set[str]] = {}
    for checked in points:
        named.setdefault(_model(checked), set()).update(checked.settings.parts)
    labels: list[str] = []
    for checked in points:
        shown = [part for part in checked.parts if part in named[_model(checked)]]
        parts = {part: checked.settings.parts.get(part, FROZEN) for part in shown}
        values = (f"{name}={_text(value)}" for name, value in checked.point.labels.items())
        labels.append(" ".join([pattern(parts), *values]))
    counts, seen = Counter(labels), Counter[str]()
    for i, label in enumerate(labels):
        seen[label] += 1
        if counts[label] > 1:
            labels[i] = f"{label} #{seen[label]}"
    return labels


def _model(checked: Checked) -> tuple[Any, ...]:
    return checked.settings.model.family, checked.point.labels.get(VARIANT_AXIS), checked.parts


def _text(value: Any) -> str:
    """An axis value in a label: a mapping by its plugin's name, other values as JSON on one line."""
    if isinstance(value, dict):
        value = next((value[key] for key in PLUGIN_KEYS if isinstance(value.get(key), str)), value)
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def target_lines(cells: Sequence[Cell]) -> list[str]:
    """Lines that name the source of default target modules by variant and part, with the methods that use it; empty if
    the spec names all targets. Imports no torch."""
    known: dict[str, Mapping[str, PartFacts]] = {}
    lines: dict[tuple[str, str], dict[str, None]] = {}  # where, source -> methods in their order
    for cell in cells:
        for part, action in cell.parts.items():
            method = cell.methods.get(action)
            if method is None or not hasattr(plugin := registry.load("methods", method.type), "source"):
                continue
            model = cell.model.model_dump_json() + cell.task.name
            if model not in known:
                task = registry.load("tasks", cell.task.name).FACTS
                known[model] = registry.load("models", cell.model.family).parts(cell.model, task)
            if source := plugin.source(method, known[model][part]):
                variant = cell.labels.get(VARIANT_AXIS)
                where = part if variant is None else f"{part} (variant {variant})"
                lines.setdefault((where, source), {})[action] = None
    return [
        f"target modules of {', '.join(methods)} on {where}: {source}" for (where, source), methods in lines.items()
    ]

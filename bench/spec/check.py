"""Checks of a spec beyond single fields: names must be known, and freeze patterns must be runnable."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import metrics, registry
from bench.errors import BenchError, SpecError
from bench.plugins.contracts import PartFacts
from bench.registry import did_you_mean
from bench.spec.diagnostics import Diagnostics, quoted
from bench.spec.matrix import AXIS_ROOTS, VARIANT_AXIS, MatrixTree, Point, matrices, short_names, split_key
from bench.spec.sections import DEFAULT_TASK, OPTIONAL_SEARCH, Spec
from bench.spec.validation_errors import validate
from bench.spec.yaml_tree import Node, Path

FROZEN_OR_TRAINED = ("F", "T")
RECORD_COLUMNS = ("seed", "status")
"""Columns that are not a part, an axis or a metric."""
MAX_CELLS = 10_000
MAX_HINTS, MAX_OPTIONS = 40, 1000
"""Diagnostics of a variant that suggest the nearest name, and names searched for it: limits for speed."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,31}")
_SCALE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NOT_IN_CELLS = ("matrix", "columns", "published", "pareto", "scales", "variants")


@dataclass(frozen=True, slots=True)
class Checked:
    """A point of the matrix with its validated settings."""

    point: Point
    settings: Spec
    parts: tuple[str, ...]
    """Parts in the order of the model family."""


def check(tree: Node, diagnostics: Diagnostics) -> tuple[Spec | None, list[Checked]]:
    """The validated spec (of the first variant) and its points, variant by variant.

    Adds every problem to ``diagnostics`` and leaves out the points that it makes unusable.
    """
    # Problems of _parts are reported for each point, not here.
    variants = [dataclasses.replace(m, parts=tuple(_parts(m.tree, Diagnostics()))) for m in matrices(tree, diagnostics)]
    cells = sum(matrix.size() for matrix in variants) * max(1, len(tree.elements("seeds")))
    if cells > MAX_CELLS:
        location = (tree.get("matrix") or tree).key_location
        diagnostics.add(location, "matrix", f"makes {cells:,} cells; at most {MAX_CELLS:,} are allowed")
    by_variant = {matrix.variant: Diagnostics() for matrix in variants}
    specs = [validate(Spec, matrix.tree, by_variant[matrix.variant]) for matrix in variants]
    points: list[Checked] = []
    for matrix, spec in zip(variants, specs, strict=True):
        _NameCheck(matrix, variants, by_variant[matrix.variant]).run()
        points += _check_points(matrix, by_variant[matrix.variant], spec is not None) if cells <= MAX_CELLS else []
    diagnostics.add_of_variants(by_variant)
    return specs[0], points


def _check_points(matrix: MatrixTree, diagnostics: Diagnostics, valid: bool) -> list[Checked]:
    points = matrix.points()
    if not points and matrix.entries("exclude"):
        location = (matrix.tree.get("matrix") or matrix.tree).key_location
        message = "leaves no cell to run; remove an `exclude` entry or add an axis value"
        diagnostics.add(location, "matrix", message)
    checked = [_check_point(point, diagnostics, valid) for point in points]
    return [each for each in checked if each is not None]


def _parts(tree: Node, diagnostics: Diagnostics) -> dict[str, PartFacts]:
    """Parts of the model; those of its family if its settings are wrong or it does not support the task."""
    family = tree.get("model", "family")
    if family is None or family.value not in registry.names("models"):
        return {}
    plugin = registry.load("models", str(family.value))
    parts: dict[str, PartFacts] = plugin.PARTS
    settings = validate(plugin.Settings, tree.get("model") or tree, Diagnostics())  # ``check`` validates them, too
    if settings is not None and (name := _task(tree)) in registry.names("tasks"):
        try:
            parts = plugin.parts(settings, registry.load("tasks", name).FACTS)
        except SpecError as error:
            diagnostics.add((tree.get("task") or tree.get("model") or tree).location, "task", str(error))
    return parts


def _task(tree: Node) -> str:
    """Name of the task as written."""
    task = tree.get("task")
    return str((task.get("name") or task).value) if task else DEFAULT_TASK.name


def _check_point(point: Point, diagnostics: Diagnostics, valid: bool) -> Checked | None:
    """The point with its settings; None if pattern or settings are wrong. Both are checked."""
    refused = Diagnostics()
    facts = _parts(point.tree, refused)
    if refused:  # without parts there is no pattern to check
        diagnostics.messages.update(refused.messages)
        return None
    runnable = _check_pattern(point, facts, diagnostics)
    if not valid:
        return None
    kept = {key: child for key, child in point.tree.items() if key not in _NOT_IN_CELLS}
    settings = validate(Spec, Node(kept, point.tree.location, point.tree.key_location), diagnostics)
    if settings is None or not runnable:
        return None
    _check_search(point.tree, settings, diagnostics)
    for part, action in point.actions().items():
        if action.value not in FROZEN_OR_TRAINED:
            method = settings.methods[str(action.value)]
            try:
                registry.load("methods", method.type).check(method, facts[part])
            except SpecError as error:
                diagnostics.add(action.location, f"parts.{part}", f"{quoted(action.value)}: {error}")
    return Checked(point, settings, tuple(facts))


def _check_search(tree: Node, settings: Spec, diagnostics: Diagnostics) -> None:
    """Whether the model family implements the optional search settings that ``evaluate`` changes."""
    supported = getattr(registry.load("models", settings.model.family), "SEARCH", ())
    for name in OPTIONAL_SEARCH:
        value = getattr(settings.evaluate, name)
        if value != type(settings.evaluate).model_fields[name].default and name not in supported:
            known = [f for f in registry.names("models") if name in getattr(registry.load("models", f), "SEARCH", ())]
            message = (
                f"{quoted(value)}: model family {settings.model.family} has no such switch; leave it out "
                f"(families that have it: {', '.join(known)})"
            )
            diagnostics.add((tree.get("evaluate", name) or tree).location, f"evaluate.{name}", message)


def _check_pattern(point: Point, facts: dict[str, PartFacts], diagnostics: Diagnostics) -> bool:
    """Whether exactly the parts of the model have actions, all known, and something is trained."""
    actions = point.actions()
    known = [*FROZEN_OR_TRAINED, *dict(point.tree.items("methods"))]
    unknown = {part: action for part, action in actions.items() if facts and part not in facts}
    for part, action in unknown.items():
        diagnostics.add(action.key_location, f"parts.{part}", f"no such part{did_you_mean(part, list(facts))}")
    # An action that is no text is a validation error.
    wrong = {p: action for p, action in actions.items() if isinstance(action.value, str) and action.value not in known}
    for part, action in wrong.items():
        hint = did_you_mean(str(action.value), known)
        diagnostics.add(action.location, f"parts.{part}", f"no action {quoted(action.value)}{hint}")
    missing = [part for part in facts if part not in actions and not (facts[part].optional and actions)]
    where = (actions and point.tree.get("parts")) or point.tree.get("matrix") or point.tree
    if missing:
        example = ", ".join(f"{part}: F" for part in missing)
        message = f"no action given for {', '.join(missing)}; give every part an action, e.g. `{example}`"
        diagnostics.add(where.location, "parts", message)
        return False
    idle = bool(actions) and all(action.value == "F" for action in actions.values())
    if idle:
        diagnostics.add(where.location, "parts", "all are F, so nothing would be trained; give one part T or a method")
    return not (unknown or wrong or idle)


def _axes(matrix: MatrixTree) -> list[str]:
    """Short names of the axes, then their dotted keys; without parts."""
    short = short_names(matrix.varied_keys(), matrix.names())
    axes = {key: name for key, name in short.items() if split_key(key)[0] != "parts"}
    return list(dict.fromkeys([*axes.values(), *matrix.names().values(), *axes]))


class _NameCheck:
    """Checks the names that one key of a spec defines and another uses."""

    def __init__(self, matrix: MatrixTree, variants: Sequence[MatrixTree], diagnostics: Diagnostics) -> None:
        """``variants``: the matrices of all variants, whose parts and axes share the columns."""
        self.tree, self.matrix, self.diagnostics = matrix.tree, matrix, diagnostics
        self.methods = [name for name, _ in matrix.tree.items("methods")]
        self.actions = [*FROZEN_OR_TRAINED, *self.methods]
        self.axes, self.axis_keys, self.long_names = _axes(matrix), set(matrix.axes()), matrix.long_names()
        self.variants = [other.variant for other in variants if other.variant]
        self.parts = list(dict.fromkeys(part for other in variants for part in other.parts))
        labels = [VARIANT_AXIS] if self.variants else []
        self.shown = list(dict.fromkeys([*self.parts, *labels, *(axis for m in variants for axis in _axes(m))]))
        self.metrics = list(metrics.names())
        varied = any(split_key(key)[0] == "task" for other in variants for key in other.varied_keys())
        self.tasks = list(registry.names("tasks")) if varied else list(dict.fromkeys(_task(m.tree) for m in variants))

    def run(self) -> None:
        """Add a diagnostic for every name that is not known."""
        self._check_defined()
        self._check_pareto()
        if self.matrix.parts:  # else the model family is not known, and one problem is enough
            self._check_axes()
            self._check_entries()
            self._check_columns()

    def _require(
        self, known: Iterable[str], node: Node, path: Path, word: str, what: str, *, is_key: bool = False
    ) -> None:
        if word not in (options := list(known)):
            location = node.key_location if is_key else node.location
            self.diagnostics.add(location, path, f"no {what} {quoted(word)}{self._hint(word, options)}")

    def _hint(self, word: str, options: list[str]) -> str:
        """The nearest name; only for the first mistakes, as hundreds of them are not typing errors."""
        return did_you_mean(word, options[:MAX_OPTIONS]) if len(self.diagnostics) < MAX_HINTS else ""

    def _check_defined(self) -> None:
        """Names that the spec itself defines: methods, scales, seeds."""
        for name, node in self.tree.items("methods"):
            path: Path = ("methods", name)
            if name in FROZEN_OR_TRAINED:
                self.diagnostics.add(node.key_location, path, "F and T mean frozen and trained; use another name")
            elif not _NAME.fullmatch(name):
                rule = (
                    "a method's name begins with a letter or digit of ASCII, and at most 31 of letters, digits, - _ + "
                    "follow (it stands in labels and dotted keys)"
                )
                self.diagnostics.add(node.key_location, path, f"{rule}; rename it")
            for part, targets in node.items("targets"):
                self._require(self.parts or [part], targets, (*path, "targets"), part, "part", is_key=True)
        for name, node in self.tree.items("scales"):
            if not _SCALE.fullmatch(name) or name == "auto":
                rule = (
                    "a scale's name begins with a letter or digit of ASCII, at most 63 of letters, digits, - _ . "
                    "follow, and it is not `auto` (it names a results file)"
                )
                self.diagnostics.add(node.key_location, ("scales", name), f"{rule}; rename it")
        scales = dict(self.tree.items("scales"))
        for i, named in enumerate(self.tree.elements("published", "scales")):
            if isinstance(named.value, str):
                self._require(scales, named, ("published", "scales", i), named.value, "scale")
        seen: list[object] = []
        for i, seed in enumerate(self.tree.elements("seeds")):
            if seed.value in seen:
                self.diagnostics.add(seed.location, ("seeds", i), f"seed {quoted(seed.value)} is repeated; remove it")
            seen.append(seed.value)

    def _check_axes(self) -> None:
        for key, node in self.tree.items("matrix", "axes"):
            self._check_axis(key, node, ("matrix", "axes", key))
            for i, value in enumerate(self.tree.elements("matrix", "axes", key) if key == "parts" else ()):
                if not isinstance(value.value, dict):
                    example = "{" + ", ".join(f"{part}: F" for part in self.matrix.parts) + "}"
                    message = f"must be a mapping such as {example}, not {quoted(value.plain())}"
                    self.diagnostics.add(value.location, ("matrix", "axes", key, i), message)
        if self.variants and VARIANT_AXIS in (*self.matrix.parts, *self.axes):
            message = f"a part or an axis is called {VARIANT_AXIS}, as the axis of variants is; choose another name"
            self.diagnostics.add((self.tree.get("matrix") or self.tree).key_location, ("matrix", "names"), message)
        taken = [*self.matrix.parts, *self.metrics, *RECORD_COLUMNS, *([VARIANT_AXIS] if self.variants else [])]
        names = [node.value for _, node in self.tree.items("matrix", "names")]
        for key, node in self.tree.items("matrix", "names"):
            self._require(self.matrix.varied_keys(), node, ("matrix", "names"), key, "axis", is_key=True)
            if node.value in taken or names.count(node.value) > 1:
                message = f"the name {quoted(node.value)} is taken by a part, a metric or another axis; choose another"
                self.diagnostics.add(node.location, ("matrix", "names", key), message)

    def _check_axis(self, key: str, node: Node, path: Path) -> None:
        """Check that an axis varies something that determines a result; validation finds unknown fields."""
        root, *rest = split_key(key)
        if root not in AXIS_ROOTS:
            roots = ", ".join(f"{known}..." for known in AXIS_ROOTS)
            hint = self._hint(key, [n for n in (*AXIS_ROOTS, *self.axes) if n != key]).split(" (known")[0]
            message = f"is no key that can be varied{hint} (an axis begins with {roots})"
            self.diagnostics.add(node.key_location, path, message)
        elif root == "methods" and rest:
            self._require(self.methods, node, path, rest[0], "method", is_key=True)
        elif root == "parts" and rest:
            self._require(self.matrix.parts, node, path, ".".join(rest), "part", is_key=True)

    def _check_entries(self) -> None:
        """Keys of ``include`` and ``exclude``."""
        for kind in ("exclude", "include"):
            for i, entry in enumerate(self.tree.elements("matrix", kind)):
                named = entry.get(VARIANT_AXIS) if self.variants else None
                if named is not None:
                    path: Path = ("matrix", kind, i, VARIANT_AXIS)
                    self._require(self.variants, named, path, str(named.value), "variant")
            for i, entry in self.matrix.entries(kind).items():
                if isinstance(entry.value, dict) and not entry.value:
                    message = "is empty; name a part or an axis and its value, or remove it"
                    self.diagnostics.add(entry.location, ("matrix", kind, i), message)
                for name, value in entry.items():
                    self._check_entry(kind, ("matrix", kind, i), name, value)

    def _check_entry(self, kind: str, here: Path, name: str, value: Node) -> None:
        key = self.long_names.get(name, name)
        if kind == "include":
            self._check_axis(key, value, (*here, name))
        elif name in self.shown and name not in (*self.matrix.parts, *self.axes):
            message = f"is of another variant; add `{VARIANT_AXIS}: ...` to say of which"
            self.diagnostics.add(value.key_location, (*here, name), message)
        elif key not in self.axis_keys and not key.startswith("parts."):
            self._require([*self.matrix.parts, *self.axes], value, here, name, "part or axis", is_key=True)
        if key.startswith("parts."):
            self._require(self.actions, value, (*here, name), str(value.value), "action")

    def _check_columns(self) -> None:
        """Columns and published rows."""
        for i, column in enumerate(self.tree.elements("columns")):
            value = column.get("value") or column
            if isinstance(value.value, str):
                options = [*self.shown, *RECORD_COLUMNS, *self.metrics]
                self._require(options, value, ("columns", i), value.value, "part, axis or metric")
                if value.value not in self.shown:
                    self._check_metric(value, ("columns", i), value.value)
        for i, row in enumerate(self.tree.elements("published", "rows")):
            for key, value in row.items():
                self._check_published(key, value, ("published", "rows", i, key))

    def _check_pareto(self) -> None:
        for key, node in self.tree.items("pareto"):
            for named in node.value if isinstance(node.value, list) else [node]:
                if isinstance(named.value, str):
                    self._require(self.metrics, named, ("pareto", key), named.value, "metric")
                    self._check_metric(named, ("pareto", key), named.value)

    def _check_metric(self, node: Node, path: Path, metric: str) -> None:
        """Refuse a metric that the task of no cell has: its column would be empty."""
        having = metrics.tasks_with(metric)
        if having and not set(having) & set(self.tasks) and all(task in registry.names("tasks") for task in self.tasks):
            ours = " or ".join(f"{task} ({', '.join(metrics.of_task(task))})" for task in self.tasks)
            message = f"is a metric of task {' and '.join(having)}, and the cells' task is {ours}"
            self.diagnostics.add(
                node.location, path, f"{quoted(metric)} {message}; choose one of its metrics, or `score`"
            )

    def _check_published(self, key: str, value: Node, path: Path) -> None:
        self._require([*self.shown, *self.metrics], value, path, key, "part, axis or metric", is_key=True)
        if key in self.matrix.parts:
            self._require(self.actions, value, path, str(value.value), "action")
        if key in self.metrics:
            self._check_metric(value, path, key)
            try:
                metrics.get(key).published(value.plain())
            except (BenchError, TypeError) as error:
                self.diagnostics.add(value.location, path, f"{error}; write a number as the paper printed it, or null")

"""What validation field by field cannot see: names that must be known, and freeze patterns that can be run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import metrics, registry
from bench.errors import BenchError, SpecError
from bench.plugins.contracts import PartFacts
from bench.registry import did_you_mean
from bench.spec.diagnostics import Problems, quoted
from bench.spec.matrix import PLACE_ROOTS, MatrixTree, Point, short_names, split_place
from bench.spec.sections import DEFAULT_TASK, OPTIONAL_SEARCH, Spec
from bench.spec.validation_errors import validate
from bench.spec.variants import COLUMN, variants_of
from bench.spec.yaml_tree import Node, Path

FROZEN_OR_TRAINED = ("F", "T")
RECORD_COLUMNS = ("seed", "status")
"""Columns that are neither part, axis nor metric."""
MAX_CELLS = 10_000
MOST_HINTS, MOST_OPTIONS = 40, 1000
"""Problems of a variant for which the nearest known name is looked up, and names it is looked up among."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,31}")
_SCALE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NOT_IN_CELLS = ("matrix", "columns", "published", "pareto", "scales", "variants")


@dataclass(frozen=True, slots=True)
class Checked:
    """A point of the matrix with its validated settings."""

    point: Point
    settings: Spec
    parts: tuple[str, ...]
    """Parts in the model family's order."""


def check(tree: Node, problems: Problems) -> tuple[Spec | None, list[Checked]]:
    """The validated spec (of several variants the first) and its points, one variant's after the other.

    Every problem found is added, and what it leaves unusable is left out."""
    matrices = [
        MatrixTree(variant.tree, tuple(_parts(variant.tree, Problems())), variant.name)  # told of each of its points
        for variant in variants_of(tree, problems)
    ]
    cells = sum(matrix.size() for matrix in matrices) * max(1, len(tree.elements("seeds")))
    fits = cells <= MAX_CELLS
    if not fits:
        problems.add(
            (tree.get("matrix") or tree).key_mark, "matrix", f"makes {cells:,} cells; at most {MAX_CELLS:,} are allowed"
        )
    own = {matrix.variant: Problems() for matrix in matrices}
    specs = [validate(Spec, matrix.tree, own[matrix.variant]) for matrix in matrices]
    points: list[Checked] = []
    for matrix, spec in zip(matrices, specs, strict=True):
        _Names(matrix, matrices, own[matrix.variant]).check()
        points += _check_points(matrix, own[matrix.variant], spec is not None) if fits else []
    problems.add_of_variants(own)
    return specs[0], points


def _check_points(matrix: MatrixTree, problems: Problems, valid: bool) -> list[Checked]:
    points = matrix.points()
    if not points and matrix.entries("exclude"):
        node = matrix.tree.get("matrix") or matrix.tree
        problems.add(node.key_mark, "matrix", "leaves no cell to run; remove an `exclude` entry or add an axis value")
    checked = [_check_point(point, problems, valid) for point in points]
    return [c for c in checked if c is not None]


def _parts(tree: Node, problems: Problems) -> dict[str, PartFacts]:
    """Parts of the model; those of its family if its settings are wrong or it cannot do the task, which is told; none
    if the family is not known."""
    family = tree.get("model", "family")
    if family is None or family.value not in registry.names("models"):
        return {}
    plugin = registry.load("models", str(family.value))
    parts: dict[str, PartFacts] = plugin.PARTS
    settings = validate(plugin.Settings, tree.get("model") or tree, Problems())  # what is wrong is told elsewhere
    if settings is not None and (name := _task(tree)) in registry.names("tasks"):
        try:
            parts = plugin.parts(settings, registry.load("tasks", name).FACTS)
        except SpecError as error:
            problems.add((tree.get("task") or tree.get("model") or tree).mark, "task", str(error))
    return parts


def _task(tree: Node) -> str:
    """Name of the task, as far as it is well formed."""
    task = tree.get("task")
    return str((task.get("name") or task).value) if task else DEFAULT_TASK.name


def _check_point(point: Point, problems: Problems, valid: bool) -> Checked | None:
    """Pattern first (it is readable even where the rest is broken), then the settings."""
    refused = Problems()
    facts = _parts(point.tree, refused)
    if refused:  # of its parts, nothing can be said
        problems.found.update(refused.found)
        return None
    runnable = _check_pattern(point, facts, problems)
    if not valid:
        return None
    kept = {key: child for key, child in point.tree.items() if key not in _NOT_IN_CELLS}
    settings = validate(Spec, Node(kept, point.tree.mark, point.tree.key_mark), problems)
    if settings is None or not runnable:
        return None
    _check_search(point.tree, settings, problems)
    for part, action in point.actions().items():
        if action.value not in FROZEN_OR_TRAINED:
            method = settings.methods[str(action.value)]
            try:
                registry.load("methods", method.type).check(method, facts[part])
            except SpecError as error:
                problems.add(action.mark, f"parts.{part}", f"{quoted(action.value)}: {error}")
    return Checked(point, settings, tuple(facts))


def _check_search(tree: Node, settings: Spec, problems: Problems) -> None:
    """Whether the model family heeds what ``evaluate`` sets beside the usual."""
    heeded = getattr(registry.load("models", settings.model.family), "SEARCH", ())
    for name in OPTIONAL_SEARCH:
        value = getattr(settings.evaluate, name)
        if value != type(settings.evaluate).model_fields[name].default and name not in heeded:
            place = tree.get("evaluate", name) or tree
            known = [f for f in registry.names("models") if name in getattr(registry.load("models", f), "SEARCH", ())]
            told = (
                f"{quoted(value)}: model family {settings.model.family} has no such switch; leave it out "
                f"(families that have it: {', '.join(known)})"
            )
            problems.add(place.mark, f"evaluate.{name}", told)


def _check_pattern(point: Point, facts: dict[str, PartFacts], problems: Problems) -> bool:
    """Whether every part, and no other, has a known action, and something is trained."""
    actions = point.actions()
    known = [*FROZEN_OR_TRAINED, *dict(point.tree.items("methods"))]
    unknown = {part: action for part, action in actions.items() if facts and part not in facts}
    for part, action in unknown.items():
        problems.add(action.key_mark, f"parts.{part}", f"no such part{did_you_mean(part, list(facts))}")
    wrong = {part: action for part, action in actions.items() if _is_text(action) and action.value not in known}
    for part, action in wrong.items():
        hint = did_you_mean(str(action.value), known)
        problems.add(action.mark, f"parts.{part}", f"no action {quoted(action.value)}{hint}")
    missing = [part for part in facts if part not in actions and not (facts[part].optional and actions)]
    where = (actions and point.tree.get("parts")) or point.tree.get("matrix") or point.tree
    if missing:
        example = ", ".join(f"{part}: F" for part in missing)
        told = f"say nothing about {', '.join(missing)}; give every part an action, e.g. `{example}`"
        problems.add(where.mark, "parts", told)
        return False
    idle = bool(actions) and all(action.value == "F" for action in actions.values())
    if idle:
        problems.add(where.mark, "parts", "all are F, so nothing would be trained; give one part T or a method")
    return not (unknown or wrong or idle)


def _is_text(node: Node) -> bool:
    return isinstance(node.value, str)  # anything else is validation's business


def _axes(matrix: MatrixTree) -> list[str]:
    """Short names of the axes, then their places; without parts."""
    short = short_names(matrix.places(), matrix.names())
    own = {place: name for place, name in short.items() if split_place(place)[0] != "parts"}
    return list(dict.fromkeys([*own.values(), *matrix.names().values(), *own]))


class _Names:
    """Names that one place of a spec gives and another uses."""

    def __init__(self, matrix: MatrixTree, matrices: Sequence[MatrixTree], problems: Problems) -> None:
        """``matrices``: those of all variants, whose parts and axes share the columns."""
        self.tree, self.matrix, self.problems = matrix.tree, matrix, problems
        self.methods = [name for name, _ in matrix.tree.items("methods")]
        self.axes = _axes(matrix)
        self.variants = [other.variant for other in matrices if other.variant]
        self.parts = list(dict.fromkeys(part for other in matrices for part in other.parts))
        labels = [COLUMN] if self.variants else []
        self.shown = list(dict.fromkeys([*self.parts, *labels, *(axis for m in matrices for axis in _axes(m))]))
        self.metrics = list(metrics.names())
        varied = any(split_place(place)[0] == "task" for other in matrices for place in other.places())
        self.tasks = list(registry.names("tasks")) if varied else list(dict.fromkeys(_task(m.tree) for m in matrices))

    def check(self) -> None:
        """Add a problem for every name that is not known."""
        self._check_given()
        self._check_pareto()
        if self.matrix.parts:  # else the model family is not known, and one problem is enough
            self._check_axes()
            self._check_keys()
            self._check_shown()

    def _unless(self, known: Iterable[str], node: Node, path: Path, word: str, what: str, *, key: bool = False) -> None:
        if word not in (options := list(known)):
            mark = node.key_mark if key else node.mark
            self.problems.add(mark, path, f"no {what} {quoted(word)}{self._hint(word, options)}")

    def _hint(self, word: str, options: list[str]) -> str:
        """The nearest name; of hundreds of mistakes, which are no typing errors, only of the first."""
        return did_you_mean(word, options[:MOST_OPTIONS]) if len(self.problems) < MOST_HINTS else ""

    def _check_given(self) -> None:
        """Names the spec makes up itself."""
        for name, node in self.tree.items("methods"):
            if name in FROZEN_OR_TRAINED:
                self.problems.add(node.key_mark, ("methods", name), "F and T mean frozen and trained; use another name")
            elif not _NAME.fullmatch(name):
                rule = (
                    "a method's name begins with a letter or digit of ASCII, and at most 31 of letters, digits, - _ + "
                    "follow (it stands in labels and dotted places)"
                )
                self.problems.add(node.key_mark, ("methods", name), f"{rule}; rename it")
            for part, targets in node.items("targets"):
                self._unless(self.parts or [part], targets, ("methods", name, "targets"), part, "part", key=True)
        for name, node in self.tree.items("scales"):
            if not _SCALE.fullmatch(name) or name == "auto":
                rule = (
                    "a scale's name begins with a letter or digit of ASCII, at most 63 of letters, digits, - _ . "
                    "follow, and it is not `auto` (it names a results file)"
                )
                self.problems.add(node.key_mark, ("scales", name), f"{rule}; rename it")
        scales = dict(self.tree.items("scales"))
        for i, named in enumerate(self.tree.elements("published", "scales")):
            if isinstance(named.value, str):
                self._unless(scales, named, ("published", "scales", i), named.value, "scale")
        seeds = [(i, seed) for i, seed in enumerate(self.tree.elements("seeds"))]
        for i, seed in seeds:
            if seed.value in [earlier.value for _, earlier in seeds[:i]]:
                self.problems.add(seed.mark, ("seeds", i), f"seed {quoted(seed.value)} is repeated; remove it")

    def _check_axes(self) -> None:
        for place, node in self.tree.items("matrix", "axes"):
            self._check_place(place, node, ("matrix", "axes", place))
            if place == "parts":
                for i, value in enumerate(self.tree.elements("matrix", "axes", place)):
                    if not isinstance(value.value, dict):
                        example = "{" + ", ".join(f"{part}: F" for part in self.matrix.parts) + "}"
                        message = f"must be a mapping such as {example}, not {quoted(value.plain())}"
                        self.problems.add(value.mark, ("matrix", "axes", place, i), message)
        if self.variants and COLUMN in (*self.matrix.parts, *self.axes):
            message = f"a part or an axis is called {COLUMN}, as what tells variants apart; choose another name"
            self.problems.add((self.tree.get("matrix") or self.tree).key_mark, ("matrix", "names"), message)
        taken = [*self.matrix.parts, *self.metrics, *RECORD_COLUMNS, *([COLUMN] if self.variants else [])]
        names = [node.value for _, node in self.tree.items("matrix", "names")]
        for place, node in self.tree.items("matrix", "names"):
            self._unless(self.matrix.places(), node, ("matrix", "names"), place, "axis", key=True)
            if node.value in taken or names.count(node.value) > 1:
                message = f"the name {quoted(node.value)} is taken by a part, a metric or another axis; choose another"
                self.problems.add(node.mark, ("matrix", "names", place), message)

    def _check_place(self, place: str, node: Node, path: Path) -> None:
        """Whether an axis varies something that determines a result; unknown fields are found by validation."""
        root, *rest = split_place(place)
        if root not in PLACE_ROOTS:
            roots = ", ".join(f"{known}..." for known in PLACE_ROOTS)
            hint = self._hint(place, [n for n in (*PLACE_ROOTS, *self.axes) if n != place]).split(" (known")[0]
            self.problems.add(
                node.key_mark, path, f"is no place that can be varied{hint} (an axis begins with {roots})"
            )
        elif root == "methods" and rest:
            self._unless(self.methods, node, path, rest[0], "method", key=True)
        elif root == "parts" and rest:
            self._unless(self.matrix.parts, node, path, ".".join(rest), "part", key=True)

    def _check_keys(self) -> None:
        """Keys of ``include`` and ``exclude``."""
        long, axes = self.matrix.long_names(), self.matrix.axes()
        for kind in ("exclude", "include"):
            for i, entry in self._entries(kind):
                here: Path = ("matrix", kind, i)
                if isinstance(entry.value, dict) and not entry.value:
                    self.problems.add(entry.mark, here, "is empty; name a part or an axis and its value, or remove it")
                for key, value in entry.items():
                    place = long.get(key, key)
                    if kind == "include":
                        self._check_place(place, value, (*here, key))
                    elif key in self.shown and key not in (*self.matrix.parts, *self.axes):
                        told = f"is of another variant; add `{COLUMN}: ...` to say of which"
                        self.problems.add(value.key_mark, (*here, key), told)
                    elif place not in axes and not place.startswith("parts."):
                        self._unless([*self.matrix.parts, *self.axes], value, here, key, "part or axis", key=True)
                    if place.startswith("parts."):
                        known = [*FROZEN_OR_TRAINED, *self.methods]
                        self._unless(known, value, (*here, key), str(value.value), "action")

    def _entries(self, kind: str) -> list[tuple[int, Node]]:
        """Entries of ``include`` or ``exclude`` that are of this variant, and their places in the list."""
        for i, entry in enumerate(self.tree.elements("matrix", kind)):
            named = entry.get(COLUMN) if self.variants else None
            if named is not None:
                self._unless(self.variants, named, ("matrix", kind, i, COLUMN), str(named.value), "variant")
        return list(self.matrix.entries(kind).items())

    def _check_shown(self) -> None:
        """Columns and published rows."""
        shown = [*self.shown, *RECORD_COLUMNS, *self.metrics]
        for i, column in enumerate(self.tree.elements("columns")):
            value = column.get("value") or column
            if isinstance(value.value, str):
                self._unless(shown, value, ("columns", i), value.value, "part, axis or metric")
                if value.value not in self.shown:
                    self._check_task(value, ("columns", i), value.value)
        for i, row in enumerate(self.tree.elements("published", "rows")):
            for key, value in row.items():
                self._check_published(key, value, ("published", "rows", i, key))

    def _check_pareto(self) -> None:
        for key, node in self.tree.items("pareto"):
            for named in node.value if isinstance(node.value, list) else [node]:
                if isinstance(named.value, str):
                    self._unless(self.metrics, named, ("pareto", key), named.value, "metric")
                    self._check_task(named, ("pareto", key), named.value)

    def _check_task(self, node: Node, path: Path, metric: str) -> None:
        """A metric of tasks that no cell has would be a column of dashes."""
        having = metrics.tasks_with(metric)
        if having and not set(having) & set(self.tasks) and all(task in registry.names("tasks") for task in self.tasks):
            ours = " or ".join(f"{task} ({', '.join(metrics.of_task(task))})" for task in self.tasks)
            told = f"is a metric of task {' and '.join(having)}, and the cells' task is {ours}"
            self.problems.add(node.mark, path, f"{quoted(metric)} {told}; choose one of its metrics, or `score`")

    def _check_published(self, key: str, value: Node, path: Path) -> None:
        self._unless([*self.shown, *self.metrics], value, path, key, "part, axis or metric", key=True)
        if key in self.matrix.parts:
            self._unless([*FROZEN_OR_TRAINED, *self.methods], value, path, str(value.value), "action")
        if key in self.metrics:
            self._check_task(value, path, key)
            try:
                metrics.get(key).published(value.plain())
            except (BenchError, TypeError) as error:
                self.problems.add(value.mark, path, f"{error}; write a number as the paper printed it, or null")

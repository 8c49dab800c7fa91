"""Variants of a spec, and the points of its matrix: the product of its axes, minus ``exclude``, plus ``include``."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bench.spec.diagnostics import Diagnostics
from bench.spec.yaml_tree import Node, merge

AXIS_ROOTS = ("parts", "methods", "model", "task", "data", "train", "evaluate")
"""Fields of a spec that an axis may vary: those that determine a result."""
VARIANT_AXIS = "variant"
"""Name of the axis of variants, the slowest axis."""
MAX_VARIANTS = 200
FIXED_IN_VARIANTS = ("name", "title", "seeds", "columns", "published", "pareto", "scales", "variants")
"""Fields that are the same for every variant."""
_VARIANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the matrix: the whole spec with the axes' values in it."""

    tree: Node
    labels: dict[str, Any]
    """Axis name -> value, the variant first; without the parts."""
    location: str
    """Where the point was written: its last axis's value, or its ``include`` entry."""

    def actions(self) -> dict[str, Node]:
        """Part -> action, as written."""
        return dict(self.tree.items("parts"))


def short_names(keys: Iterable[str], names: dict[str, str]) -> dict[str, str]:
    """Dotted key -> name in labels and columns: as in ``names``, else its last word if that is unique, else the key."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    counts = Counter(last.values())
    return {key: names.get(key, word if counts[word] == 1 else key) for key, word in last.items()}


def split_key(key: str) -> tuple[str, ...]:
    """The path of a dotted key; ``matrix.axes`` and ``matrix.names`` hold dotted keys themselves."""
    for root in ("matrix.axes.", "matrix.names."):
        if key.startswith(root):
            return (*root.rstrip(".").split("."), key.removeprefix(root))
    return tuple(key.split("."))


def matrices(tree: Node, diagnostics: Diagnostics) -> list[MatrixTree]:
    """Matrix of each variant in the order written, merged like scales; that of the spec without variants."""
    written = tree.items("variants")
    if len(written) > MAX_VARIANTS:
        message = f"has {len(written):,} variants; at most {MAX_VARIANTS} are allowed"
        diagnostics.add(written[0][1].key_location, "variants", message)
    variants = []
    for name, over in written[:MAX_VARIANTS]:
        if not _VARIANT_NAME.fullmatch(name):
            rule = (
                "a variant's name begins with a letter or digit of ASCII, and at most 63 of letters, digits, - _ . + "
                "follow (it stands in labels)"
            )
            diagnostics.add(over.key_location, ("variants", name), f"{rule}; rename it")
        for key, node in over.items():
            if key in FIXED_IN_VARIANTS:
                message = "is the same for every variant; remove it here and set it at the top"
                diagnostics.add(node.key_location, ("variants", name, key), message)
        merged = merge(tree, over.without(*FIXED_IN_VARIANTS)) if isinstance(over.value, dict) else tree
        here = dataclasses.replace(merged, location=over.location, key_location=over.key_location)
        variants.append(MatrixTree(here, variant=name))
    return variants or [MatrixTree(tree)]


@dataclass(frozen=True, slots=True)
class MatrixTree:
    """Matrix of a spec as written; tolerates mistakes, which ``check`` reports."""

    tree: Node
    """The spec, merged with its variant."""
    parts: tuple[str, ...] = ()
    """Parts of the model family."""
    variant: str = ""
    """Name of the variant; empty without variants."""

    def axes(self) -> dict[str, list[Node]]:
        """Dotted key -> values, each with the location of the key as its key's location."""
        return {
            key: [Node(value.value, value.location, axis.key_location) for value in self._values(key)]
            for key, axis in self.tree.items("matrix", "axes")
        }

    def _values(self, key: str) -> list[Node]:
        """Values as written; a part's action with wildcards stands for all matching methods that the list lacks."""
        values = self.tree.elements("matrix", "axes", key)
        if split_key(key)[0] != "parts":
            return values
        named, expanded = {value.value for value in values if isinstance(value.value, str)}, list[Node]()
        for value in values:
            pattern = value.value if isinstance(value.value, str) else ""
            matches = [name for name, _ in self.tree.items("methods") if "*" in pattern and fnmatchcase(name, pattern)]
            fresh = [Node(name, value.location, value.key_location) for name in matches if name not in named]
            expanded += fresh if matches else [value]
            named |= set(matches)
        return expanded

    def entries(self, kind: str) -> dict[int, Node]:
        """Index -> entry of ``include`` or ``exclude``, without those of other variants."""
        entries = dict(enumerate(self.tree.elements("matrix", kind)))
        if not self.variant:
            return entries
        kept = {i: e for i, e in entries.items() if (v := e.get(VARIANT_AXIS)) is None or v.value == self.variant}
        return {i: entry.without(VARIANT_AXIS) for i, entry in kept.items()}

    def names(self) -> dict[str, str]:
        """``matrix.names`` as far as it is well formed."""
        return {k: n.value for k, n in self.tree.items("matrix", "names") if isinstance(n.value, str)}

    def varied_keys(self) -> list[str]:
        """Every dotted key that an axis or an ``include`` entry sets, in that order."""
        long = self.long_names()
        included = (key for entry in self.entries("include").values() for key, _ in entry.items())
        return list(dict.fromkeys([*self.axes(), *(long.get(key, key) for key in included)]))

    def long_names(self) -> dict[str, str]:
        """Name in ``include``, ``exclude`` or a published row -> the dotted key it stands for, if that is another."""
        axes = {name: key for key, name in short_names(self.axes(), self.names()).items()}
        return axes | {name: key for key, name in self.names().items()} | {p: f"parts.{p}" for p in self.parts}

    def size(self) -> int:
        """Number of points before ``exclude``."""
        return math.prod(len(values) for values in self.axes().values()) + len(self.entries("include"))

    def points(self) -> list[Point]:
        """All points, the first axis slowest, then those of ``include``."""
        short, long = short_names(self.varied_keys(), self.names()), self.long_names()
        axes, include = self.axes(), list(self.entries("include").values())
        excluded = list(self.entries("exclude").values())
        points = []
        for values in itertools.product(*axes.values()) if axes or not include else ():
            chosen = dict(zip(axes, values, strict=True))
            if "parts" in chosen and not isinstance(chosen["parts"].value, dict):
                continue  # reported by ``check``
            point = self._point(chosen, short)
            if not any(_agrees(point, entry, long) for entry in excluded):
                points.append(point)
        for entry in include:
            chosen = {long.get(key, key): Node(n.value, n.location, n.key_location) for key, n in entry.items()}
            points.append(self._point(chosen, short, entry.location))
        return points

    def _point(self, chosen: dict[str, Node], short: dict[str, str], location: str = "") -> Point:
        tree = self.tree
        for key, value in chosen.items():
            root, *rest = split_key(key)
            # Validation finds unknown fields, but would take an unknown method or root for a new one.
            if root in AXIS_ROOTS and not (root == "methods" and rest and self.tree.get(root, rest[0]) is None):
                tree = tree.put(split_key(key), value)
        labels: dict[str, Any] = {VARIANT_AXIS: self.variant} if self.variant else {}
        labels |= {short[key]: value.plain() for key, value in chosen.items() if split_key(key)[0] != "parts"}
        locations = [location, *(value.location for value in chosen.values()), self.tree.location]
        return Point(tree, labels, next(each for each in locations if each))


def _agrees(point: Point, entry: Node, long: dict[str, str]) -> bool:
    """Whether a point has all the values of an ``exclude`` entry."""

    def same(key: str, wanted: Node) -> bool:
        node = point.tree.get(*split_key(long.get(key, key)))
        return node is not None and node.plain() == wanted.plain()

    return bool(entry.items()) and all(same(key, wanted) for key, wanted in entry.items())

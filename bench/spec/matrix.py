"""The points of a matrix: the product of its axes, minus ``exclude``, plus ``include``."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bench.spec.variants import COLUMN
from bench.spec.yaml_tree import Node

PLACE_ROOTS = ("parts", "methods", "model", "task", "data", "train", "evaluate")
"""Fields of a spec that an axis may vary: those that determine a result."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the matrix: the whole spec with the axes' values in place."""

    tree: Node
    labels: dict[str, Any]
    """Axis name -> value, the variant first; without the parts."""
    mark: str
    """Where the point was written: its last axis's value, or its ``include`` entry."""

    def actions(self) -> dict[str, Node]:
        """Part -> action, as written."""
        return dict(self.tree.items("parts"))


def short_names(places: Iterable[str], names: dict[str, str]) -> dict[str, str]:
    """Dotted place -> name in labels and columns: the given one, else its last word, else (not unique) itself."""
    places = list(dict.fromkeys(places))
    last = Counter(place.rsplit(".", 1)[-1] for place in places)
    return {p: names.get(p, p.rsplit(".", 1)[-1] if last[p.rsplit(".", 1)[-1]] == 1 else p) for p in places}


def split_place(place: str) -> tuple[str, ...]:
    """Keys on the way to a dotted place; ``matrix.axes`` and ``matrix.names`` have places as their own keys."""
    for root in ("matrix.axes.", "matrix.names."):
        if place.startswith(root):
            return (*root.rstrip(".").split("."), place.removeprefix(root))
    return tuple(place.split("."))


@dataclass(frozen=True, slots=True)
class MatrixTree:
    """The matrix of a spec as it was written; tolerant of mistakes, which are reported elsewhere."""

    tree: Node
    parts: tuple[str, ...]
    """Parts of the model family."""
    variant: str = ""
    """Name of the variant whose tree this is; empty without variants."""

    def axes(self) -> dict[str, list[Node]]:
        """Dotted place -> values, each with the key's mark as its own key mark."""
        return {
            place: [Node(value.value, value.mark, axis.key_mark) for value in self._values(place)]
            for place, axis in self.tree.items("matrix", "axes")
        }

    def _values(self, place: str) -> list[Node]:
        """As written, but for a part's action with wildcards: all methods that it means and the list does not name."""
        values = self.tree.elements("matrix", "axes", place)
        if split_place(place)[0] != "parts":
            return values
        named, found = {value.value for value in values if isinstance(value.value, str)}, list[Node]()
        for value in values:
            pattern = value.value if isinstance(value.value, str) else ""
            meant = [name for name, _ in self.tree.items("methods") if "*" in pattern and fnmatchcase(name, pattern)]
            found += (
                [Node(name, value.mark, value.key_mark) for name in meant if name not in named] if meant else [value]
            )
            named |= set(meant)
        return found

    def entries(self, kind: str) -> dict[int, Node]:
        """Place in the list -> entry of ``include`` or ``exclude``, without those of other variants."""
        entries = dict(enumerate(self.tree.elements("matrix", kind)))
        if not self.variant:
            return entries
        own = {i: e for i, e in entries.items() if (named := e.get(COLUMN)) is None or named.value == self.variant}
        return {i: entry.without(COLUMN) for i, entry in own.items()}

    def names(self) -> dict[str, str]:
        """``matrix.names`` as far as it is well formed."""
        return {k: n.value for k, n in self.tree.items("matrix", "names") if isinstance(n.value, str)}

    def places(self) -> list[str]:
        """Every place that an axis or an ``include`` entry sets, in that order."""
        found = dict.fromkeys(self.axes())
        long = self.long_names()
        for entry in self.entries("include").values():
            found |= dict.fromkeys(long.get(key, key) for key, _ in entry.items())
        return list(found)

    def long_names(self) -> dict[str, str]:
        """Key of ``include``, ``exclude`` or a published row -> the dotted place it means, if that is another."""
        axes = {name: place for place, name in short_names(self.axes(), self.names()).items()}
        return axes | {name: place for place, name in self.names().items()} | {p: f"parts.{p}" for p in self.parts}

    def size(self) -> int:
        """Number of points before ``exclude``, for refusing what nobody can run."""
        return math.prod(len(values) for values in self.axes().values()) + len(self.entries("include"))

    def points(self) -> list[Point]:
        """All points, the first axis slowest, then those of ``include``."""
        short, long = short_names(self.places(), self.names()), self.long_names()
        axes, include = self.axes(), list(self.entries("include").values())
        products = [] if include and not axes else [dict(chosen) for chosen in _product(axes)]
        found = [self._point(chosen, short) for chosen in products if _usable(chosen)]
        excluded = list(self.entries("exclude").values())
        found = [point for point in found if not any(_agrees(point, entry, long) for entry in excluded)]
        for entry in include:
            chosen = {long.get(key, key): Node(n.value, n.mark, n.key_mark) for key, n in entry.items()}
            found.append(self._point(chosen, short, entry.mark))
        return found

    def _point(self, chosen: dict[str, Node], short: dict[str, str], mark: str = "") -> Point:
        tree = self.tree
        for place, value in chosen.items():
            if self._exists(place):
                tree = tree.put(split_place(place), value)
        labels: dict[str, Any] = {COLUMN: self.variant} if self.variant else {}
        labels |= {short[p]: v.plain() for p, v in chosen.items() if split_place(p)[0] != "parts"}
        marks = [mark, *(value.mark for value in chosen.values()), self.tree.mark]
        return Point(tree, labels, next(m for m in marks if m))

    def _exists(self, place: str) -> bool:
        """Whether a cell can differ there; an unknown field is only found by validation."""
        root, *rest = split_place(place)
        return root in PLACE_ROOTS and not (root == "methods" and rest and self.tree.get(root, rest[0]) is None)


def _agrees(point: Point, entry: Node, long: dict[str, str]) -> bool:
    def same(key: str, wanted: Node) -> bool:
        found = point.tree.get(*split_place(long.get(key, key)))
        return found is not None and found.plain() == wanted.plain()

    return bool(entry.items()) and all(same(key, wanted) for key, wanted in entry.items())


def _usable(chosen: dict[str, Node]) -> bool:
    return "parts" not in chosen or isinstance(chosen["parts"].value, dict)


def _product(axes: dict[str, list[Node]]) -> Iterator[tuple[tuple[str, Node], ...]]:
    yield from itertools.product(*([(place, value) for value in values] for place, values in axes.items()))

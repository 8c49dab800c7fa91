"""From a YAML file to a validated spec: read, merge the scale and ``--set``, check all scales, report every problem."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import SpecError
from bench.registry import did_you_mean
from bench.spec.check import Checked, check
from bench.spec.diagnostics import Diagnostics, quoted
from bench.spec.matrix import split_key
from bench.spec.sections import Spec
from bench.spec.yaml_tree import MAX_BYTES, Node, merge, parse

MAX_SCALES = 100
FIXED_IN_SCALES = ("name", "scales")
"""Fields that are the same at every scale."""


@dataclass(frozen=True, slots=True)
class ResolvedSpec:
    """A valid spec at one scale, with the points of its matrix."""

    spec: Spec
    scale: str
    points: list[Checked]


@dataclass(frozen=True, slots=True)
class SpecSource:
    """A spec file as it was written."""

    path: Path
    tree: Node

    @property
    def name(self) -> str:
        """Name of the spec as written, or of its file."""
        node = self.tree.get("name")
        return str(node.value) if node else self.path.stem

    @property
    def base_scale(self) -> str:
        """Name of the scale that is the spec as it stands."""
        return "paper" if "paper" in self._overrides() or self.tree.get("published") else "default"

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of all scales, the spec as it stands first."""
        return tuple(dict.fromkeys([self.base_scale, *self._overrides()]))

    def resolve(
        self, scale: str, sets: Sequence[str] = (), seeds: Sequence[int] | None = None, *, alone: bool = False
    ) -> ResolvedSpec:
        """The spec at ``scale`` with ``--set`` and ``--seeds`` applied.

        Raises SpecError with the problems of all scales; with ``--set`` or ``alone`` (to read results), of the chosen
        scale only.
        """
        diagnostics = Diagnostics()
        if scale not in self.scales:
            hint = did_you_mean(scale, self.scales)
            raise SpecError(f"--scale {scale}: {self.path} has no scale {quoted(scale)}{hint}")
        if len(self.scales) > MAX_SCALES:
            written = self.tree.get("scales")
            location = written.key_location if written else self.tree.location
            raise SpecError(f"{location}: scales: has {len(self.scales):,} scales; at most {MAX_SCALES} are allowed")
        overrides = [_parse_set(text, diagnostics) for text in sets]
        diagnostics.raise_if_any()
        tree = self._at(scale, diagnostics)
        for location, path, leaf in overrides:
            _check_set(tree, location, path, diagnostics)
            tree = tree.put(path, leaf)
        if seeds is not None:
            location = "--seeds " + ",".join(map(str, seeds))
            tree = tree.put(("seeds",), Node([Node(seed, location, location) for seed in seeds], location, location))
        spec, points = check(tree, diagnostics)
        for other in self.scales if not (sets or alone) else ():
            if other != scale:
                check(self._at(other, diagnostics), diagnostics)
        diagnostics.raise_if_any()
        assert spec is not None
        return ResolvedSpec(spec, scale, points)

    def _overrides(self) -> dict[str, Node]:
        return dict(self.tree.items("scales"))

    def _at(self, scale: str, diagnostics: Diagnostics) -> Node:
        override = self._overrides().get(scale)
        if override is None or not isinstance(override.value, dict):
            return self.tree
        for key in FIXED_IN_SCALES:
            if key in override.value:
                location = override.value[key].key_location
                diagnostics.add(location, ("scales", scale, key), "is the same at every scale; remove it here")
        return merge(self.tree, override.without(*FIXED_IN_SCALES))


def read_spec(path: Path) -> SpecSource:
    """Read a spec file. Raises SpecError if it cannot be read or is not a YAML mapping of plain values."""
    diagnostics = Diagnostics()
    tree = parse(_read_text(path), str(path), diagnostics)
    diagnostics.raise_if_any()
    assert tree is not None
    if tree.value is None:
        raise SpecError(f"{path}:1:1: the file is empty; copy a spec such as specs/table1.yaml and edit it")
    if not isinstance(tree.value, dict):
        raise SpecError(f"{tree.location}: a spec is a mapping (`model: ...`, `data: ...`); see specs/table1.yaml")
    start = f"{path}:1:1"
    tree = dataclasses.replace(tree, location=start, key_location=start)
    if tree.get("name") is None:
        tree = Node({"name": Node(path.stem, start, start), **dict(tree.items())}, start, start)
    return SpecSource(path, tree)


def _read_text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise SpecError(f"{path}: is a folder, not a spec file{_files_beside(path, '')}")
        if not stat.S_ISREG(mode):
            raise SpecError(f"{path}: is not a regular file; save the spec as a .yaml file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file{_files_beside(path.parent, path.name)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{quoted(str(path))}: cannot be read: {reason}; check the name and its permissions") from None
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: is larger than {MAX_BYTES // 1024} KiB; is it a spec? Data and weights go elsewhere")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise SpecError(f"{path}:{line}:{column}: is not UTF-8; save the file as UTF-8 text") from None


def _files_beside(folder: Path, wanted: str) -> str:
    """A hint at spec files that may be meant."""
    folders = dict.fromkeys([folder, Path("specs")])
    files = {str(file): file.name for f in folders if f.is_dir() for file in sorted(f.glob("[!.]*.yaml"))}
    if not files:
        return "; check the path: there is no .yaml file in that folder"
    near = did_you_mean(wanted, list(files.values())).split("'")
    guess = next((path for path, name in files.items() if len(near) > 1 and name == near[1]), None)
    return (f"; did you mean '{guess}'?" if guess else "") + f" (known: {', '.join(list(files)[:8])})"


def _parse_set(text: str, diagnostics: Diagnostics) -> tuple[str, tuple[str, ...], Node]:
    """Location (the option itself), path and value of a ``--set``."""
    key, equals, value = text.partition("=")
    location, path = f"--set {text}", split_key(key.strip())
    if not equals or not all(path):
        diagnostics.add(location, "", "write a dotted key, '=' and a value, e.g. --set train.optimizer.lr=1e-4")
        return location, path, Node(None, location, location)
    leaf = parse(value, location, diagnostics, is_file=False)
    return location, path, leaf or Node(None, location, location)


def _check_set(tree: Node, location: str, path: tuple[str, ...], diagnostics: Diagnostics) -> None:
    """Refuse a ``--set`` without effect or with an unknown name; validation finds unknown fields."""
    key = ".".join(path)
    if path[0] == "scales":
        message = "a scale is chosen with --scale; set the field itself, e.g. --set train.batch_size=8"
        diagnostics.add(location, "", message)
    variants = [name for name, _ in tree.items("variants")]
    if path[0] == "variants" and len(path) > 1 and path[1] not in variants:
        diagnostics.add(location, "", f"there is no variant {quoted(path[1])}{did_you_mean(path[1], variants)}")
    setting = [name for name in variants if tree.get("variants", name, *path)]
    if setting:
        example = f"--set variants.{setting[0]}.{key}=..."
        diagnostics.add(location, "", f"{key} is set by variant {', '.join(setting)}; choose one, e.g. {example}")
    methods = [name for name, _ in tree.items("methods")]
    if path[0] == "methods" and len(path) > 2 and path[1] not in methods:
        diagnostics.add(location, "", f"there is no method {quoted(path[1])}{did_you_mean(path[1], methods)}")
    for axis, values in tree.items("matrix", "axes"):
        steps = split_key(axis)
        rest = path[len(steps) :]
        if path[: len(steps)] == steps and all(value.get(*rest) for value in values.elements()):
            example = f"--set 'matrix.axes.{axis}=[...]'"
            message = f"{key} is set by the matrix axis {axis}; choose cells with --only, or use {example}"
            diagnostics.add(location, "", message)

"""YAML text as a tree whose values know their locations, and merging of such trees.

Only what a spec needs is accepted: one document of mappings, lists and plain values. Anchors, aliases, tags, duplicate
keys and excessive size or depth are refused, so that a spec holds no surprises and cannot explode in size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from bench.spec.diagnostics import Diagnostics, quoted

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}
PLUGIN_KEYS = ("family", "name", "peft_type", "type", "kind", "model_type")
"""Keys that name the plugin (or variant) of a mapping, the more specific first."""
METHOD_KEYS = ("type", "peft_type", "adapter_config")
"""Keys that each name a PEFT method."""

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a spec, with the locations (``file:line:col`` or ``--set ...``) of it and of its key."""

    value: dict[str, Node] | list[Node] | Scalar
    location: str
    key_location: str

    def plain(self) -> Any:
        """The value without locations."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node at ``path``, or None."""
        node = self
        for step in path:
            child: Node | None = None
            if isinstance(node.value, dict):
                child = node.value.get(step) if isinstance(step, str) else None
            elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
                child = node.value[step]
            if child is None:
                return None
            node = child
        return node

    def items(self, *path: str | int) -> list[tuple[str, Node]]:
        """Key and value pairs of the mapping at ``path``; empty without a mapping."""
        node = self.get(*path) if path else self
        return list(node.value.items()) if node is not None and isinstance(node.value, dict) else []

    def elements(self, *path: str | int) -> list[Node]:
        """Elements of the list at ``path``; empty without a list."""
        node = self.get(*path)
        return list(node.value) if node is not None and isinstance(node.value, list) else []

    def without(self, *keys: str) -> Node:
        """A copy of a mapping without these keys; any other value as it is."""
        if not isinstance(self.value, dict):
            return self
        return Node(
            {key: node for key, node in self.value.items() if key not in keys}, self.location, self.key_location
        )

    def put(self, path: tuple[str, ...], leaf: Node) -> Node:
        """A copy with ``leaf`` merged in at ``path``; missing mappings on the way are created."""
        if not path:
            return merge(self, leaf)
        if not isinstance(self.value, dict):
            return Node({}, leaf.location, leaf.key_location).put(path, leaf)
        below = self.value.get(path[0])
        if below is None:
            below = leaf if len(path) == 1 else Node({}, leaf.location, leaf.key_location)
        return Node({**self.value, path[0]: below.put(path[1:], leaf)}, self.location, self.key_location)


def merge(base: Node, over: Node) -> Node:
    """``over`` merged into ``base`` mapping by mapping; one that names another plugin replaces the whole mapping."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _other_plugin(base, over):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, base.location, base.key_location)


def _other_plugin(base: Node, over: Node) -> bool:
    """Whether the mappings name different plugins, or name methods by different keys."""
    ours, theirs = _names(base), _names(over)
    if any(ours[key] != theirs[key] for key in ours.keys() & theirs.keys()):
        return True
    ways, others = ours.keys() & set(METHOD_KEYS), theirs.keys() & set(METHOD_KEYS)
    return bool(ways and others) and not ways & others


def _names(mapping: Node) -> dict[str, str]:
    """Key -> name of the plugin; peft types may be in upper or lower case."""
    names = {key: node.value for key, node in mapping.items() if key in (*PLUGIN_KEYS, *METHOD_KEYS)}
    return {key: name.lower() if key == "peft_type" else name for key, name in names.items() if isinstance(name, str)}


# --- reading -------------------------------------------------------------------------------------------------


def parse(text: str, source: str, diagnostics: Diagnostics, *, is_file: bool = True) -> Node | None:
    """The tree of one YAML document, or None (with diagnostics added) if it is not acceptable.

    Locations are ``source:line:column``, or ``source`` itself where it is an option such as ``--set``.
    """
    before = len(diagnostics)
    reader = _Reader(source, is_file, diagnostics)
    root = reader.compose(text)
    if len(diagnostics) > before:
        return None
    if root is None:
        return Node(None, source, source)
    tree = reader.build(root, reader.location(root), ())
    return tree if len(diagnostics) == before else None


class _Reader:
    """Turns ruamel's nodes into ``Node``, refusing what a spec cannot hold."""

    def __init__(self, source: str, is_file: bool, diagnostics: Diagnostics) -> None:
        self.source, self.is_file, self.diagnostics = source, is_file, diagnostics
        self.refused: set[int] = set()

    def at(self, line: int, column: int = 0) -> str:
        """Location of a line and column counted from 0."""
        return f"{self.source}:{line + 1}:{column + 1}" if self.is_file else self.source

    def location(self, node: Any) -> str:
        return self.at(node.start_mark.line, node.start_mark.column)

    def compose(self, text: str) -> YamlNode | None:
        """ruamel's nodes; None for an empty document, or with a diagnostic for invalid YAML."""
        for number, line in enumerate(text.splitlines()):
            if line.startswith("%"):
                message = f"a line {quoted(line)} is not allowed; remove it: specs are plain YAML 1.2"
                self.diagnostics.add(self.at(number), "", message)
                return None
        try:
            root: YamlNode | None = YAML(typ="rt", pure=True).compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = " ".join(part for part in (error.context, error.problem) if part)
            advice = "check indentation, colons and quotes here and on the line above"
            if isinstance(error, ComposerError) and "single document" in what:
                advice = "put the second document into a file of its own"
            location = self.at(mark.line, mark.column) if mark else self.at(0)
            self.diagnostics.add(location, "", f"not valid YAML: {what}; {advice}")
        except (YAMLError, ValueError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            location = self.at(text.count("\n", 0, getattr(error, "position", 0)))  # ReaderError has a position
            self.diagnostics.add(location, "", f"not valid YAML: {first}; save it as plain UTF-8 text")
        except RecursionError:
            self.diagnostics.add(self.at(0), "", f"nested deeper than {MAX_DEPTH} levels; flatten the spec")
        else:
            return root
        return None

    def build(self, node: YamlNode, key_location: str, path: Path) -> Node:
        here = self.location(node)
        if refused := _refused(node, path):
            if id(node) not in self.refused:  # an alias is the node of its anchor
                self.diagnostics.add(here, path, refused)
            self.refused.add(id(node))
            return Node(None, here, key_location)
        if isinstance(node, MappingNode):
            return Node(self._mapping(node, path), here, key_location)
        if isinstance(node, SequenceNode):
            children = [self.build(child, self.location(child), (*path, i)) for i, child in enumerate(node.value)]
            return Node(children, here, key_location)
        assert isinstance(node, ScalarNode)
        try:
            return Node(_scalar(node), here, key_location)
        except ValueError as error:
            self.diagnostics.add(here, path, str(error))
            return Node(None, here, key_location)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here, key = self.location(key_node), _key(key_node)
            if key is None:
                self.diagnostics.add(here, path, "a key must be a text; put it in quotes")
            elif key in children:
                message = f"duplicate key, first written at {children[key].key_location}; remove one of the two"
                self.diagnostics.add(here, (*path, key), message)
            else:
                children[key] = self.build(value_node, here, (*path, key))
        return children


def _refused(node: YamlNode, path: Path) -> str | None:
    """Why a spec cannot have this node; None if it can. Refusing anchors refuses aliases, too."""
    if node.anchor is not None:
        return f"anchor &{node.anchor} is not allowed, nor aliases of it; remove it and repeat the value"
    if str(node.tag) not in _TAGS:
        return f"tag {quoted(str(node.tag))} is not allowed; remove it: values are plain YAML"
    return f"nested deeper than {MAX_DEPTH} levels; flatten the spec" if len(path) > MAX_DEPTH else None


def _key(node: YamlNode) -> str | None:
    text = _paired(str(node.value)) if isinstance(node, ScalarNode) and str(node.tag).endswith(":str") else None
    return text if text is None or _encodable(text) else None


def _paired(text: str) -> str:
    """The text with surrogate pairs, as JSON escapes write them, joined; a lone surrogate stays."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _encodable(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _scalar(node: ScalarNode) -> Scalar:
    """A plain value as YAML 1.2 reads it (``no`` is a text, ``1e-5`` a number). Raises ValueError."""
    kind, text = str(node.tag).rsplit(":", 1)[-1], _paired(str(node.value))
    if not _encodable(text):
        raise ValueError("holds half a surrogate pair, which is not a character; remove the \\ud8.. escape")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    digits = text.replace("_", "")
    if kind == "int":
        if len(digits) > 20:
            raise ValueError(f"{quoted(text)} is too large a number; put it in quotes if it is a text")
        return int(digits, 0) if digits.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(digits)
    if kind == "float":
        number = float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            raise ValueError(f"{quoted(text)} is not a finite number; write one, or null for none")
        return number
    return text

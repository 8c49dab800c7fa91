"""YAML text -> a tree that knows where each value was written, and merging of such trees.

Only what a spec needs is accepted: one document of mappings, lists and plain values. Anchors, aliases, tags,
duplicate keys and excessive size or depth are refused, so a spec means what it looks like and cannot explode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from bench.spec.problems import Problems, quoted

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
PLUGIN_KEYS = ("family", "name", "type", "kind")
"""Keys that name the plugin (or variant) a mapping belongs to."""

Path = tuple[str | int, ...]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a spec with the places (``file:line:col`` or ``--set ...``) where it and its key were written."""

    value: dict[str, Node] | list[Node] | Scalar
    mark: str
    key_mark: str

    def plain(self) -> Any:
        """The value without its marks."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node at ``path``, or None."""
        node = self
        for step in path:
            children = enumerate(node.value) if isinstance(node.value, list) else node.items()
            found = next((child for key, child in children if key == step), None)
            if found is None:
                return None
            node = found
        return node

    def items(self, *path: str | int) -> list[tuple[str, Node]]:
        """Key and value of the mapping at ``path``; nothing if there is none."""
        node = self.get(*path) if path else self
        return list(node.value.items()) if node is not None and isinstance(node.value, dict) else []

    def elements(self, *path: str | int) -> list[Node]:
        """Elements of the list at ``path``; nothing if there is none."""
        node = self.get(*path)
        return list(node.value) if node is not None and isinstance(node.value, list) else []

    def put(self, path: tuple[str, ...], leaf: Node) -> Node:
        """A copy with ``leaf`` merged in at ``path``; mappings on the way are made where they are missing."""
        if not path:
            return merge(self, leaf)
        children = self.value if isinstance(self.value, dict) else {}
        below = children.get(path[0])
        if below is None:
            below = leaf if len(path) == 1 else Node({}, leaf.mark, leaf.key_mark)
        return Node({**children, path[0]: below.put(path[1:], leaf)}, self.mark, self.key_mark)


def merge(base: Node, over: Node) -> Node:
    """``over`` on ``base``, mapping by mapping; a mapping that names another plugin replaces the whole of it."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _other_plugin(base, over):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, base.mark, base.key_mark)


def _other_plugin(base: Node, over: Node) -> bool:
    for key in PLUGIN_KEYS:
        ours, theirs = base.get(key), over.get(key)
        if ours and theirs and isinstance(ours.value, str) and isinstance(theirs.value, str):
            return ours.value != theirs.value
    return False


def parse_tree(text: str, source: str, problems: Problems, *, fixed_mark: bool = False) -> Node | None:
    """The tree of one YAML document, or None (with problems added) if it is not acceptable.

    ``source`` is the file's name; with ``fixed_mark`` it is the mark itself (for ``--set``)."""

    def mark(node: Any) -> str:
        return source if fixed_mark else f"{source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    yaml = YAML(typ="rt", pure=True)
    try:
        if not _acceptable(yaml, text, mark, problems):
            return None
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = source if fixed_mark or at is None else f"{source}:{at.line + 1}:{at.column + 1}"
        what = " ".join(part for part in (error.context, error.problem) if part)
        problems.add(
            place, "", f"not valid YAML: {what}; check indentation, colons and quotes here and on the line above"
        )
        return None
    except (YAMLError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        problems.add(source, "", f"not valid YAML: {first}; save it as plain UTF-8 text")
        return None
    if root is None:
        return Node(None, source, source)
    before = len(problems)
    tree = _Builder(mark, problems).build(root, mark(root), ())
    return tree if len(problems) == before else None


def _acceptable(yaml: YAML, text: str, mark: Any, problems: Problems) -> bool:
    """Whether the document has no aliases, anchors, tags, second document or excessive depth; reads events only."""
    before, depth, documents = len(problems), 0, 0
    for event in yaml.parse(text):
        depth += _nesting(event)
        if depth > MAX_DEPTH:
            problems.add(mark(event), "", f"nested deeper than {MAX_DEPTH} levels; flatten the spec")
            return False
        documents += isinstance(event, DocumentStartEvent)
        if getattr(event, "version", None) or getattr(event, "tags", None):
            problems.add(mark(event), "", "a %YAML or %TAG line is not allowed; remove it: specs are YAML 1.2")
        if documents > 1:
            problems.add(mark(event), "", "a second YAML document begins here; put it into a file of its own")
            return False
        if isinstance(event, AliasEvent):
            problems.add(mark(event), "", f"alias *{event.anchor} is not allowed; repeat the value")
        elif isinstance(event, NodeEvent) and event.anchor is not None:
            problems.add(mark(event), "", f"anchor &{event.anchor} is not allowed; remove it and repeat the value")
        tag = getattr(event, "tag", None)
        if tag is not None and not isinstance(event, AliasEvent):
            problems.add(mark(event), "", f"tag {quoted(str(tag))} is not allowed; remove it: values are plain YAML")
    return len(problems) == before


def _nesting(event: Any) -> int:
    name = type(event).__name__
    return int(name in ("MappingStartEvent", "SequenceStartEvent")) - int(
        name in ("MappingEndEvent", "SequenceEndEvent")
    )


class _Builder:
    """Turns ruamel's nodes into ours, refusing what a spec cannot hold."""

    def __init__(self, mark: Any, problems: Problems) -> None:
        self.mark, self.problems = mark, problems

    def build(self, node: YamlNode, key_mark: str, path: Path) -> Node:
        here = self.mark(node)
        if isinstance(node, MappingNode):
            return Node(self._mapping(node, path), here, key_mark)
        if isinstance(node, SequenceNode):
            children = [self.build(child, self.mark(child), (*path, i)) for i, child in enumerate(node.value)]
            return Node(children, here, key_mark)
        assert isinstance(node, ScalarNode)
        try:
            return Node(_scalar(node), here, key_mark)
        except ValueError as error:
            self.problems.add(here, path, str(error))
            return Node(None, here, key_mark)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for key_node, value_node in node.value:
            at = self.mark(key_node)
            key = _key(key_node)
            if key is None:
                self.problems.add(at, path, "a key must be a text; put it in quotes")
            elif key in children:
                first = children[key].key_mark
                self.problems.add(at, (*path, key), f"duplicate key, first written at {first}; remove one of the two")
            else:
                children[key] = self.build(value_node, at, (*path, key))
        return children


def _key(node: YamlNode) -> str | None:
    text = str(node.value) if isinstance(node, ScalarNode) and str(node.tag).endswith(":str") else None
    return text if text is None or _encodable(text) else None


def _encodable(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _scalar(node: ScalarNode) -> Scalar:
    """A plain value as YAML 1.2 reads it (``no`` is a text, ``1e-5`` a number). Raises ValueError."""
    kind, text = str(node.tag).rsplit(":", 1)[-1], str(node.value)
    if not _encodable(text):
        raise ValueError("holds half a surrogate pair, which is no character; remove the \\ud8.. escape")
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

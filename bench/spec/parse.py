"""YAML text -> tree.

Only what a spec needs is accepted: one document of mappings, lists and plain values. Anchors, aliases, tags,
duplicate keys and excessive size or depth are refused, so a spec means what it looks like and cannot explode.
"""

from __future__ import annotations

import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from bench.spec.diagnostics import Problems, quoted
from bench.spec.yaml_tree import Node, Path, Scalar

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")}


def parse(text: str, source: str, problems: Problems, *, is_file: bool = True) -> Node | None:
    """The tree of one YAML document, or None (with problems added) if it is not acceptable.

    Marks are ``source:line:column``, or ``source`` itself where it is no file but an option such as ``--set``."""
    before = len(problems)
    marks = _Marks(source, is_file)
    root = _compose(text, marks, problems)
    if len(problems) > before:
        return None
    if root is None:
        return Node(None, source, source)
    tree = _Builder(marks, problems).build(root, marks.of(root), ())
    return tree if len(problems) == before else None


class _Marks:
    def __init__(self, source: str, is_file: bool) -> None:
        self.source, self.is_file = source, is_file

    def at(self, line: int, column: int = 0) -> str:
        """Mark of a place counted from 0."""
        return f"{self.source}:{line + 1}:{column + 1}" if self.is_file else self.source

    def of(self, node: Any) -> str:
        return self.at(node.start_mark.line, node.start_mark.column)


def _compose(text: str, marks: _Marks, problems: Problems) -> YamlNode | None:
    """ruamel's nodes; None for an empty document, or with a problem added for what is no YAML."""
    for number, line in enumerate(text.splitlines()):
        if line.startswith("%"):
            message = f"a line {quoted(line)} is not allowed; remove it: specs are plain YAML 1.2"
            problems.add(marks.at(number), "", message)
            return None
    try:
        root: YamlNode | None = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = marks.at(at.line, at.column) if at else marks.at(0)
        what = " ".join(part for part in (error.context, error.problem) if part)
        advice = "check indentation, colons and quotes here and on the line above"
        if isinstance(error, ComposerError) and "single document" in what:
            advice = "put the second document into a file of its own"
        problems.add(place, "", f"not valid YAML: {what}; {advice}")
    except (YAMLError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        place = marks.at(text.count("\n", 0, getattr(error, "position", 0)))  # ReaderError has a position
        problems.add(place, "", f"not valid YAML: {first}; save it as plain UTF-8 text")
    except RecursionError:
        problems.add(marks.at(0), "", f"nested deeper than {MAX_DEPTH} levels; flatten the spec")
    else:
        return root
    return None


class _Builder:
    """Turns ruamel's nodes into ours, refusing what a spec cannot hold."""

    def __init__(self, marks: _Marks, problems: Problems) -> None:
        self.mark, self.problems = marks.of, problems
        self.refused: set[int] = set()

    def build(self, node: YamlNode, key_mark: str, path: Path) -> Node:
        here = self.mark(node)
        refused = _refused(node, path)
        if refused:
            if id(node) not in self.refused:  # an alias is its anchor's node once more
                self.problems.add(here, path, refused)
            self.refused.add(id(node))
            return Node(None, here, key_mark)
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


def _refused(node: YamlNode, path: Path) -> str | None:
    """Why this node cannot be part of a spec. An alias needs an anchor, so refusing anchors refuses both."""
    if node.anchor is not None:
        return f"anchor &{node.anchor} is not allowed, nor aliases of it; remove it and repeat the value"
    if str(node.tag) not in _TAGS:
        return f"tag {quoted(str(node.tag))} is not allowed; remove it: values are plain YAML"
    return f"nested deeper than {MAX_DEPTH} levels; flatten the spec" if len(path) > MAX_DEPTH else None


def _key(node: YamlNode) -> str | None:
    text = _paired(str(node.value)) if isinstance(node, ScalarNode) and str(node.tag).endswith(":str") else None
    return text if text is None or _encodable(text) else None


def _paired(text: str) -> str:
    """A character that JSON's escapes write as two halves is one; a half alone stays one."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _encodable(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _scalar(node: ScalarNode) -> Scalar:
    """A plain value as YAML 1.2 reads it (``no`` is a text, ``1e-5`` a number). Raises ValueError."""
    kind, text = str(node.tag).rsplit(":", 1)[-1], _paired(str(node.value))
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

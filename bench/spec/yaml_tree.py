"""A spec as a tree that knows where each of its values was written, and merging of such trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLUGIN_KEYS = ("family", "name", "peft_type", "type", "kind", "model_type")
"""Keys that name the plugin (or variant) a mapping belongs to, the more telling of two first."""
METHOD_KEYS = ("type", "peft_type", "adapter_config")
"""Keys of which any one names a PEFT method."""

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
            found: Node | None = None
            if isinstance(node.value, dict):
                found = node.value.get(step) if isinstance(step, str) else None
            elif isinstance(node.value, list) and isinstance(step, int) and 0 <= step < len(node.value):
                found = node.value[step]
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

    def without(self, *keys: str) -> Node:
        """A copy of a mapping without these keys; another value itself."""
        if not isinstance(self.value, dict):
            return self
        return Node({key: node for key, node in self.value.items() if key not in keys}, self.mark, self.key_mark)

    def put(self, path: tuple[str, ...], leaf: Node) -> Node:
        """A copy with ``leaf`` merged in at ``path``; mappings on the way are made where they are missing."""
        if not path:
            return merge(self, leaf)
        if not isinstance(self.value, dict):
            return Node({}, leaf.mark, leaf.key_mark).put(path, leaf)
        below = self.value.get(path[0])
        if below is None:
            below = leaf if len(path) == 1 else Node({}, leaf.mark, leaf.key_mark)
        return Node({**self.value, path[0]: below.put(path[1:], leaf)}, self.mark, self.key_mark)


def merge(base: Node, over: Node) -> Node:
    """``over`` on ``base``, mapping by mapping; a mapping that names another plugin replaces the whole of it."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _other_plugin(base, over):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, base.mark, base.key_mark)


def _other_plugin(base: Node, over: Node) -> bool:
    """Whether a key that both have names different things, or they name methods by different keys."""
    ours, theirs = _names(base), _names(over)
    if any(ours[key] != theirs[key] for key in ours.keys() & theirs.keys()):
        return True
    ways, others = ours.keys() & set(METHOD_KEYS), theirs.keys() & set(METHOD_KEYS)
    return bool(ways and others) and not ways & others


def _names(mapping: Node) -> dict[str, str]:
    """What the mapping is, by key; peft's types may be written in upper or lower case."""
    found = {key: node.value for key, node in mapping.items() if key in (*PLUGIN_KEYS, *METHOD_KEYS)}
    return {key: name.lower() if key == "peft_type" else name for key, name in found.items() if isinstance(name, str)}

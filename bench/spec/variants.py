"""Variants of a spec: several models, data sets or tasks in one table, each the spec with overrides of its own."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from bench.spec.diagnostics import Problems
from bench.spec.yaml_tree import Node, merge

MAX_VARIANTS = 200
COLUMN = "variant"
"""Name of the axis: the slowest one."""
FIXED_IN_VARIANTS = ("name", "title", "seeds", "columns", "published", "pareto", "scales", "variants")
"""Fields that are the same for every variant."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant's whole spec."""

    name: str
    """Empty: the spec has no variants, this is itself."""
    tree: Node


def variants_of(tree: Node, problems: Problems) -> list[Variant]:
    """The variants in the order written, merged as scales are; the spec itself if there are none."""
    found = []
    written = tree.items("variants")
    if len(written) > MAX_VARIANTS:
        told = f"has {len(written):,} variants; at most {MAX_VARIANTS} are allowed"
        problems.add(written[0][1].key_mark, "variants", told)
    for name, over in written[:MAX_VARIANTS]:
        if not _NAME.fullmatch(name):
            rule = (
                "a variant's name begins with a letter or digit of ASCII, and at most 63 of letters, digits, - _ . + "
                "follow (it stands in labels)"
            )
            problems.add(over.key_mark, ("variants", name), f"{rule}; rename it")
        for key, node in over.items():
            if key in FIXED_IN_VARIANTS:
                told = "is the same for every variant; remove it here and set it at the top"
                problems.add(node.key_mark, ("variants", name, key), told)
        merged = merge(tree, over.without(*FIXED_IN_VARIANTS)) if isinstance(over.value, dict) else tree
        found.append(Variant(name, dataclasses.replace(merged, mark=over.mark, key_mark=over.key_mark)))
    return found or [Variant("", tree)]

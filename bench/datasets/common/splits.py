"""Which splits a run needs, and how to make two of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings

_Item = TypeVar("_Item")


def wanted(settings: DataSettings) -> tuple[str, ...]:
    """Names of the splits that are trained on or evaluated, in that order; others need not be read."""
    names = [name.strip() for name in f"{settings.train_split}+{settings.test_split}".split("+")]
    return tuple(dict.fromkeys(names))


def by_hash(items: Iterable[_Item], test_share: float, key: Callable[[_Item], str]) -> dict[str, list[_Item]]:
    """``train`` and ``test``, each in the order of ``items``: an item is for testing if the SHA-256 of its key, as a
    number from 0 to 1, is below ``test_share``.

    That depends on the key alone: equal keys are never parted, and no item changes sides when others are added.
    """
    splits: dict[str, list[_Item]] = {"train": [], "test": []}
    for item in items:
        number = _hash(key(item)) / 2**256
        splits["test" if number < test_share else "train"].append(item)
    return splits


def content(example: Example) -> str:
    """What must not be in two splits: the image or, without one, the text."""
    pair = () if example.text_pair is None else (example.text_pair,)
    return example.image or "\n".join((*example.questions, *pair))


def drawn(
    examples: Sequence[Example], test_share: float, *, seed: int, by_class: bool
) -> tuple[list[Example], list[Example]]:
    """Training and test examples, each in their order: a share of the different contents, ``by_class`` of each class.

    A content with several classes counts to the first. A class of two or more contents is in both.
    """
    strata: dict[str, dict[str, None]] = {}
    seen: set[str] = set()
    for example in examples:
        if (key := content(example)) not in seen:
            seen.add(key)
            strata.setdefault(example.answer if by_class else "", {})[key] = None
    chosen: set[str] = set()
    for keys in strata.values():
        count = min(len(keys) - 1, max(1, round(test_share * len(keys))))
        chosen.update(sorted(keys, key=lambda key: _hash(f"{seed}\0{key}"))[:count])
    train = [example for example in examples if content(example) not in chosen]
    return train, [example for example in examples if content(example) in chosen]


def shared(
    examples: Iterable[Example], test_share: float, *, seed: int | None, by_class: bool
) -> dict[str, list[Example]]:
    """``train`` and ``test``: ``by_hash`` of their contents, or with a seed ``drawn``."""
    if seed is None:
        return by_hash(examples, test_share, content)
    train, test = drawn(list(examples), test_share, seed=seed, by_class=by_class)
    return {"train": train, "test": test}


def _hash(text: str) -> int:
    """Below 2**256."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

"""Which splits a run needs, and how to make two of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from bench.settings import DataSettings

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
        number = int.from_bytes(hashlib.sha256(key(item).encode("utf-8", "surrogatepass")).digest()) / 2**256
        splits["test" if number < test_share else "train"].append(item)
    return splits

"""Which cells no other beats, in any number of costs and scores, and which are beaten only within the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import le
from typing import Literal

Standing = Literal["front", "noise", "beaten", "floor"]
"""``front``: no other is as good in everything and better in something; ``noise``: one is, but each of those that are
cannot be told from it in something; ``beaten``: one is, beyond the noise; ``floor``: no better than the floor, so never
on the front."""
Told = Callable[[int, int, int], bool]
"""Whether two places can be told apart in one objective: (place, other place, objective)."""


def standings(places: Sequence[Sequence[float]], floored: Sequence[bool], told: Told) -> list[Standing]:
    """Of each place; ``places`` hold one number per objective, less is better; ``floored``: not above the floor."""
    found: list[Standing] = ["floor"] * len(places)
    front: list[int] = []
    # In this order whatever beats a place comes before it, and what is beaten need not be asked: its beaters are there.
    for i in sorted((i for i in range(len(places)) if not floored[i]), key=lambda i: tuple(places[i])):
        beaters = [j for j in front if _beats(places[j], places[i])]
        if not beaters:
            front.append(i)
            found[i] = "front"
        else:
            surely = any(all(told(i, j, k) for k in range(len(places[i]))) for j in beaters)
            found[i] = "beaten" if surely else "noise"
    return found


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(map(le, a, b)) and a != b

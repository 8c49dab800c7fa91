"""White dots on a black square of 16 x 16 pixels, to be counted; drawn when they are asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bench.errors import DataError
from bench.plugins import DataSettings, Example

if TYPE_CHECKING:
    from PIL.Image import Image

SIZES = {"train": 400, "test": 100}


class Settings(DataSettings):
    """Generated; always the same."""

    name: Literal["dots"]
    most: int = 4
    """Dots in the fullest pictures."""


def digest(settings: Settings) -> str:  # noqa: ARG001 - ``most`` is part of the cell's id, and there are no files
    """Changes when the pictures do."""
    return "dots 1"


def load(settings: Settings) -> Dots:
    """The two splits."""
    return Dots(settings.most)


class Dots:
    """See ``bench.plugins.contracts.OpenedData``."""

    def __init__(self, most: int) -> None:
        self.most = most

    def split(self, name: str) -> Sequence[Example]:
        """As many pictures of each count."""
        if name not in SIZES:
            raise DataError(f"no split {name!r}; choose one of {', '.join(SIZES)}")
        names = (f"{name}-{index}" for index in range(SIZES[name]))
        return [Example(question_id=name, image=name, answer=str(i % (self.most + 1))) for i, name in enumerate(names)]

    def image(self, example: Example) -> Image:
        """Dots of 2 x 2 pixels that do not touch."""
        import PIL.Image

        picture = PIL.Image.new("RGB", (16, 16))
        places = random.Random(example.image_name).sample(range(25), int(example.answer))
        for place in places:
            x, y = 3 * (place % 5), 3 * (place // 5)
            picture.paste((255, 255, 255), (x, y, x + 2, y + 2))
        return picture

    def texts(self) -> Sequence[str]:
        """None are read."""
        return ()

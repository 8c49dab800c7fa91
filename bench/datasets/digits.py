"""Handwritten digits: 1,797 grey pictures of 8 x 8 pixels in 10 classes, as they ship inside scikit-learn.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine Learning
Repository, CC BY 4.0). Splits: ``test`` is the last fifth of each class in the order of the file (364 pictures),
``train`` the rest (1,433).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.datasets.common import files
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings

if TYPE_CHECKING:
    from PIL.Image import Image

WHITE = 16
"""Largest level of a pixel."""
TEST_SHARE = 0.2


class DigitsSettings(DataSettings):
    """The embedded data set; nothing to set."""

    name: Literal["digits"]


Settings = DigitsSettings


def digest(settings: DigitsSettings) -> str:  # noqa: ARG001 - the data are always the package's
    """See ``DataPlugin.digest``; does not import scikit-learn."""
    spec = find_spec("sklearn")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path("sklearn")
    file = folder / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DataError(
            "the digits are not there: they ship inside the package scikit-learn\n"
            "  install it again: python -m pip install --force-reinstall --no-deps scikit-learn"
        )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load(settings: DigitsSettings) -> Digits:
    """See ``DataPlugin.load``."""
    digest(settings)
    return Digits()


@cache
def _bunch() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()


class Digits(files.Splits):
    """``OpenedData`` on scikit-learn's arrays."""

    def __init__(self) -> None:
        labels = [str(label) for label in _bunch().target]
        sizes, seen = Counter(labels), Counter[str]()
        splits: dict[str, list[Example]] = {"train": [], "test": []}
        for index, label in enumerate(labels):
            seen[label] += 1
            split = "test" if seen[label] > (1 - TEST_SHARE) * sizes[label] else "train"
            splits[split].append(Example(question_id=str(index), image=str(index), answer=label))
        super().__init__(splits)

    def image(self, example: Example) -> Image:
        """See ``OpenedData.image``: 8 x 8 pixels, white on black, three equal channels."""
        import numpy as np
        import PIL.Image

        levels = _bunch().images[int(example.image_name)] * (255 / WHITE)
        return PIL.Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")

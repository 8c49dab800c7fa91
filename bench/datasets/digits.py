"""Handwritten digits: 1,797 grey pictures of 8 x 8 pixels in 10 classes, as they ship inside scikit-learn.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine Learning
Repository, CC BY 4.0). Splits: ``test`` is the last fifth of each class in the order of the file (364 pictures),
``train`` the rest (1,433).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from bench.datasets.common.dataset import DataSet, package_folder
from bench.plugins import DataSettings, Example

if TYPE_CHECKING:
    from PIL.Image import Image

TEST_SHARE = 0.2
_REMEDY = "  install it again: python -m pip install --force-reinstall --no-deps scikit-learn"
_WHITE = 16  # largest level of a pixel


class DigitsSettings(DataSettings):
    """The embedded data set; nothing to set."""

    name: Literal["digits"]


Settings = DigitsSettings


def digest(settings: DigitsSettings) -> str:  # noqa: ARG001 - the data are always the package's
    """SHA-256 of the package's file; scikit-learn is not imported."""
    file = package_folder("sklearn", _REMEDY) / "datasets" / "data" / "digits.csv.gz"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load(settings: DigitsSettings) -> DataSet:
    """The two splits. Raises DataError if scikit-learn is not installed."""
    package_folder("sklearn", _REMEDY)
    labels = [str(label) for label in _bunch().target]
    sizes, seen = Counter(labels), Counter[str]()
    splits: dict[str, list[Example]] = {"train": [], "test": []}
    for index, label in enumerate(labels):
        seen[label] += 1
        split = "test" if seen[label] > (1 - TEST_SHARE) * sizes[label] else "train"
        splits[split].append(Example(question_id=str(index), image=str(index), answer=label))
    return DataSet(splits=splits, image=_image, digest=lambda: digest(settings))


def _image(example: Example) -> Image:
    """The picture as RGB: 8 x 8 pixels, white on black."""
    import numpy as np
    import PIL.Image

    levels = _bunch().images[int(example.image_name)] * (255 / _WHITE)
    return PIL.Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")


@cache
def _bunch() -> Any:
    # Imported here, as scikit-learn takes a second, and cached, as it parses the file at every call.
    from sklearn.datasets import load_digits

    return load_digits()

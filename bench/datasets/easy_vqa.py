"""easy-VQA: 64x64 pictures of one coloured shape each, questions with 13 possible answers.

Ships inside the ``easy-vqa`` package (MIT licence), so it is there wherever this package is installed.
Splits: ``train`` (4,000 images, 38,575 questions) and ``test`` (1,000 and 9,673). The annotation has no answer type:
a question is closed if its answer is yes or no.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from bench.datasets import _files
from bench.errors import DataError
from bench.protocols import Example, VqaData
from bench.settings import DataSettings

SPLITS = ("train", "test")


class EasyVqaSettings(DataSettings):
    """The embedded data set; nothing to set."""

    name: Literal["easy_vqa"]


Settings = EasyVqaSettings


def digest(settings: EasyVqaSettings) -> str:  # noqa: ARG001 - the data are always the package's
    """See ``DataPlugin.digest``."""
    root = _root()
    images = [f"{split}/images/{p.name}" for split in SPLITS for p in (root / split / "images").iterdir()]
    return _files.digest([root / split / "questions.json" for split in SPLITS], root, images)


def load(settings: EasyVqaSettings) -> VqaData:  # noqa: ARG001 - the data are always the package's
    """See ``DataPlugin.load``."""
    root = _root()
    return _files.ImageFolder({split: _examples(root, split) for split in SPLITS}, root)


def _examples(root: Path, split: str) -> list[Example]:
    path = root / split / "questions.json"
    return [_example(path, split, index, row) for index, row in enumerate(_files.read_json(path))]


def _example(path: Path, split: str, index: int, row: Any) -> Example:
    match row:
        case [str(question), str(answer), int(image)]:
            return Example(
                question_id=f"{split}-{index}",
                image=f"{split}/images/{image}.png",
                questions=(question,),
                answer=answer,
                answer_type="closed" if answer in ("yes", "no") else "open",
            )
    raise DataError(f"{path}: record {index}: expected [question, answer, image number], found {row!r:.100}")


def _root() -> Path:
    spec = find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("data set easy_vqa: the package is not installed; run: python -m pip install easy-vqa")
    return Path(spec.submodule_search_locations[0]) / "data"

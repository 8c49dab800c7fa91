"""easy-VQA: 64x64 pictures of one coloured shape each, questions with 13 possible answers.

Ships inside the ``easy-vqa`` package (MIT licence), so it is there wherever this package is installed.
Splits: ``train`` (4,000 images, 38,575 questions) and ``test`` (1,000 and 9,673). The annotation has no answer type:
a question is closed if its answer is yes or no.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from bench.datasets.common import files
from bench.errors import DataError
from bench.plugins.contracts import Example
from bench.plugins.settings import DataSettings

SPLITS = ("train", "test")
PUBLISHED = "5a70815ae3ad1d718a8061401c756024d10cbb77f07a13db4f6fbfb1e99d1409"
"""``contents_digest`` of the images in easy-vqa 1.0."""
REMEDY = "  install it again: python -m pip install --force-reinstall --no-deps easy-vqa"


class EasyVqaSettings(DataSettings):
    """The embedded data set; nothing to set."""

    name: Literal["easy_vqa"]


Settings = EasyVqaSettings


def digest(settings: EasyVqaSettings) -> str:  # noqa: ARG001 - the data are always the package's
    """See ``DataPlugin.digest``."""
    root = _root()
    images = [f"{split}/images/{path.name}" for split in SPLITS for path in (root / split / "images").iterdir()]
    return files.files_digest(_annotations(root).values(), root, images, REMEDY, published=PUBLISHED)


def load(settings: EasyVqaSettings) -> files.ImageFolder:  # noqa: ARG001 - the data are always the package's
    """See ``DataPlugin.load``."""
    root = _root()
    annotations = _annotations(root)
    splits = {split: _examples(path, split) for split, path in annotations.items()}
    return files.ImageFolder(
        splits, images=root, annotations=list(annotations.values()), remedy=REMEDY, published=PUBLISHED
    )


def _annotations(root: Path) -> dict[str, Path]:
    return {split: root / split / "questions.json" for split in SPLITS}


def _examples(path: Path, split: str) -> list[Example]:
    return [_example(path, split, index, row) for index, row in enumerate(files.read_json(path))]


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
        raise DataError(f"data set easy_vqa: the package is not installed\n{REMEDY}")
    return Path(spec.submodule_search_locations[0]) / "data"

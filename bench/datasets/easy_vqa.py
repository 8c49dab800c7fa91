"""easy-VQA: 64x64 pictures of one coloured shape each, questions with 13 possible answers.

Ships inside the ``easy-vqa`` package (MIT licence), so it is there wherever this package is installed.
Splits: ``train`` (4,000 images, 38,575 questions) and ``test`` (1,000 and 9,673). The annotation has no answer type:
a question is closed if its answer is yes or no.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from bench.datasets.common.dataset import DataSet, package_folder
from bench.datasets.common.images import files_digest, open_folder
from bench.datasets.common.rows import read_json
from bench.errors import DataError
from bench.plugins import DataSettings, Example

SPLITS = ("train", "test")
PUBLISHED = "5a70815ae3ad1d718a8061401c756024d10cbb77f07a13db4f6fbfb1e99d1409"
"""SHA-256 over the names and contents of the images in easy-vqa 1.0."""
_REMEDY = "  install it again: python -m pip install --force-reinstall --no-deps easy-vqa"


class EasyVqaSettings(DataSettings):
    """The embedded data set; nothing to set."""

    name: Literal["easy_vqa"]


Settings = EasyVqaSettings


def digest(settings: EasyVqaSettings) -> str:  # noqa: ARG001 - the data are always the package's
    """SHA-256 over the annotations and all images of the package."""
    root, paths = _paths()
    images = [f"{split}/images/{path.name}" for split in SPLITS for path in (root / split / "images").iterdir()]
    return files_digest(paths, root, images, _REMEDY, published=PUBLISHED)


def load(settings: EasyVqaSettings) -> DataSet:  # noqa: ARG001 - the data are always the package's
    """The two splits. Raises DataError if the package is not installed."""
    root, paths = _paths()
    splits = {
        split: [_example(path, split, index, record) for index, record in enumerate(read_json(path))]
        for split, path in zip(SPLITS, paths, strict=True)
    }
    return open_folder(splits, root, paths, _REMEDY, published=PUBLISHED)


def _paths() -> tuple[Path, list[Path]]:
    """Root and annotation files."""
    root = package_folder("easy_vqa", _REMEDY) / "data"
    return root, [root / split / "questions.json" for split in SPLITS]


def _example(path: Path, split: str, index: int, record: Any) -> Example:
    match record:
        case [str(question), str(answer), int(image)]:
            return Example(
                question_id=f"{split}-{index}",
                image=f"{split}/images/{image}.png",
                questions=(question,),
                answer=answer,
                answer_type="closed" if answer in ("yes", "no") else "open",
            )
    raise DataError(f"{path}: record {index}: expected [question, answer, image number], found {record!r:.100}")

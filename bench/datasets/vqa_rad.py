"""VQA-RAD (Lau et al., Scientific Data 2018): 314 radiology images, 2,248 questions, CC0.

Splits: ``train`` (1,797 questions) and ``test`` (451). In the official split 202 of the 203 test images also occur
in training; ``split_by: image`` makes one without common images from all questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from bench.datasets.common.dataset import DataSet, split_by_image
from bench.datasets.common.images import FolderSettings, first_existing, open_folder
from bench.datasets.common.rows import SourceRow, read_records, unique
from bench.errors import DataError
from bench.plugins import Example, LocalPath

PUBLIC = "VQA_RAD Dataset Public.json"
PUBLISHED = "97efa059df7b10a306b2f8a636d585b0ccc3396812f239b98671769549ad9ddc"
"""SHA-256 over the names and contents of the 314 images that the questions need."""
LEAKY_ROWS = 3064
LEAKY_SHARE = 0.02
"""More test questions than this share also in training: a leak (the official split has 1 of 451)."""


class VqaRadSettings(FolderSettings):
    """Local files: the public JSON, or a train and a test file cut from it."""

    SOURCE: ClassVar[str] = "https://osf.io/89kps/ (CC0)"
    LAYOUT: ClassVar[str] = f"""
{PUBLIC}   (or trainset.json and testset.json)
images/synpic*.jpg            (or "VQA_RAD Image Folder/")
"""

    name: Literal["vqa_rad"]
    root: LocalPath = Path("data/vqa_rad")
    """Folder with the annotation files and the images."""
    split_by: Literal["official", "image"] = "official"
    """``image``: no image in both splits; about a fifth of the images, with all their questions, for testing."""
    allow_leaky: bool = False
    """Accept a train file that holds rephrased test questions; the train and test files then go before the public
    JSON. Only to reproduce numbers that were published with it."""


Settings = VqaRadSettings


def digest(settings: VqaRadSettings) -> str:
    """SHA-256 over annotations and images."""
    return load(settings).digest()


def load(settings: VqaRadSettings) -> DataSet:
    """The two splits. Raises DataError for missing files, broken records and a leaky train file."""
    root = settings.root
    images = first_existing(root, ("images", "VQA_RAD Image Folder"))
    if images is None:
        problem = "there is no folder of images in it" if root.is_dir() else "there is no such folder"
        raise settings.not_found(root, problem)
    if (root / PUBLIC).exists() and not settings.allow_leaky:
        annotations = [root / PUBLIC]
        splits = _split_public(root / PUBLIC)
    else:
        annotations = [_annotation(settings, split) for split in ("train", "test")]
        splits = {
            split: _examples(read_records(path)) for split, path in zip(("train", "test"), annotations, strict=True)
        }
        if not settings.allow_leaky:
            refuse_leaky(str(annotations[0]), splits)
    if settings.split_by == "image":
        splits = split_by_image([*splits["train"], *splits["test"]])
    remedy, follow = settings.remedy(root), settings.follow_links
    return open_folder(splits, images, annotations, remedy, follow_links=follow, published=PUBLISHED)


def _annotation(settings: VqaRadSettings, split: str) -> Path:
    names = [stem + suffix for stem in (f"{split}set", split) for suffix in (".json", ".jsol", ".jsonl")]
    path = first_existing(settings.root, names)
    if path is None:
        raise settings.not_found(settings.root, f"there is neither {PUBLIC!r} nor a {split} file")
    return path


def _split_public(path: Path) -> dict[str, Sequence[Example]]:
    """The official splits of the public JSON."""
    # ``phrase_type`` is freeform or para in training, and test_freeform or test_para in the test set.
    parts: dict[bool, list[SourceRow]] = {False: [], True: []}
    for row in read_records(path):
        parts[row.words("phrase_type").startswith("test")].append(row)
    return {"train": _examples(parts[False]), "test": _examples(parts[True])}


def _examples(rows: Sequence[SourceRow]) -> Sequence[Example]:
    return unique(((row, _example(row)) for row in rows), "qid")


def _example(row: SourceRow) -> Example:
    return Example(
        question_id=row.words("qid"),
        image=row.words("image_name"),
        questions=(row.words("question"),),
        answer=row.words("answer"),
        answer_type=row.answer_type("answer_type"),
    )


def question_key(image: str, question: str) -> tuple[str, str]:
    """Key of a question: the image, and the text without case, white space and question mark."""
    return image, " ".join(question.lower().split()).rstrip("?. ")


def refuse_leaky(source: str, splits: Mapping[str, Sequence[Example]]) -> None:
    """Raise DataError for a training split that holds test questions.

    The widely copied train file has 3,064 rows: the official 1,797 and 1,267 "framed" questions, which are rephrased
    ones of both parts, 284 of test questions. It is known by its row count; any other by the share of test questions
    that stand in it word for word.
    """
    train, test = splits["train"], splits["test"]
    known = {question_key(example.image_name, example.question()) for example in train}
    common = sum(question_key(example.image_name, example.question()) in known for example in test)
    if len(train) != LEAKY_ROWS and common <= LEAKY_SHARE * len(test):
        return
    raise DataError(
        f"{source}: {len(train):,} training rows, {common} of {len(test)} test questions word for word among them: "
        "this is the copy of VQA-RAD that leaks test questions (rephrased) into training.\n"
        f"  use {PUBLIC!r} (1,797 training questions, from {VqaRadSettings.SOURCE}), or, to reproduce numbers that "
        "were published with the leak, set `data.allow_leaky: true`"
    )
